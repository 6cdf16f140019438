//! Where a plugin stops until its test lets it go on.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use crate::{Lab, SOON, process::is_ready};

/// A socket that plugins with the script word `wait` visit.
#[derive(Debug)]
pub struct Gate {
    listener: UnixListener,
    path: PathBuf,
}

impl Gate {
    /// Opens the gate of a lab.
    ///
    /// # Panics
    /// If the lab has one already.
    pub fn new(lab: &Lab) -> Self {
        let path = lab.path("gate");
        let listener = UnixListener::bind(&path).expect("one gate a lab");
        Self { listener, path }
    }

    /// The lines of configuration that show the gate to a plugin.
    pub fn config(&self, plugin: &str) -> String {
        format!(
            "[plugin.{plugin}.config]\ngate = \"{}\"\n",
            self.path.display()
        )
    }

    /// Waits for a plugin to arrive.
    ///
    /// # Panics
    /// If none does.
    #[track_caller]
    pub fn visitor(&self) -> Visitor {
        assert!(is_ready(&self.listener, SOON), "nobody came to the gate");
        let (stream, _) = self.listener.accept().expect("somebody has come");
        stream
            .set_read_timeout(Some(SOON))
            .expect("the limit is not zero");
        let mut scene = String::new();
        let mut reader = BufReader::new(&stream);
        reader
            .read_line(&mut scene)
            .expect("visitors say who they are");
        let scene = scene.trim_end().to_owned();
        Visitor {
            scene,
            _stream: stream,
        }
    }
}

/// A plugin that waits. Goes on when this is dropped, whatever happens to the test.
pub struct Visitor {
    /// The scene and the mark of the plugin, such as `call 7`.
    pub scene: String,
    _stream: UnixStream,
}

impl Visitor {
    /// Lets the plugin go on.
    pub fn let_go(self) {}
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visitor({})", self.scene)
    }
}
