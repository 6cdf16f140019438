//! A point where a plugin stops until its test lets it continue.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{Lab, SOON, lab::in_workers, process::is_ready};

/// A port that plugins with the script word `wait` visit: nobody can let a worker to a Unix socket.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
}

impl Gate {
    /// Opens a gate for the plugins of a lab.
    ///
    /// # Panics
    /// If there is no loopback.
    pub fn new(_: &Lab) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
        Self { listener }
    }

    /// The lines of configuration that show the gate to a plugin, wherever it lives by default.
    pub fn config(&self, plugin: &str) -> String {
        let address = self.listener.local_addr().expect("it is bound");
        let shown = format!("[plugin.{plugin}.config]\ngate = \"{address}\"\n");
        match in_workers() {
            true => granted(plugin, &shown),
            false => shown,
        }
    }

    /// The same for a plugin that lives in a worker in any case.
    pub fn config_in_worker(&self, plugin: &str) -> String {
        match in_workers() {
            true => self.config(plugin),
            false => granted(plugin, &self.config(plugin)),
        }
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

fn granted(plugin: &str, config: &str) -> String {
    format!("[plugin.{plugin}]\nallow = [\"net\"]\n{config}")
}

/// A plugin that waits. It continues when this is dropped, whatever happens to the test.
pub struct Visitor {
    /// The scene and the mark of the plugin, such as `call 7`.
    pub scene: String,
    _stream: TcpStream,
}

impl Visitor {
    /// Lets the plugin continue.
    pub fn let_go(self) {}
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visitor({})", self.scene)
    }
}
