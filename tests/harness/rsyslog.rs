//! rsyslog, as Debian ships it.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::{Process, SOON, debian::unpacked};

/// Where it is unpacked, with the libraries that it needs.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let packages = ["rsyslog", "libestr0", "libfastjson4", "liblognorm5"];
    unpacked("rsyslog", &packages)
});

/// A server that writes what it understands of each record as a JSON object per line.
#[derive(Debug)]
pub struct Rsyslog {
    _process: Process,
    address: SocketAddr,
    socket: PathBuf,
    output: PathBuf,
}

impl Rsyslog {
    /// Starts one with all its files in this directory, and waits until it listens.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start(dir: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = free.expect("a port is free");
        let [config, socket, output] =
            ["rsyslog.conf", "syslog", "received"].map(|name| dir.join(name));
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = ROOT.join("usr/lib").join(triplet);
        fs::write(&config, configuration(&address, &socket, &output)).expect("the test's own");
        let mut command = Command::new(ROOT.join("usr/sbin/rsyslogd"));
        command
            .env("LD_LIBRARY_PATH", &libraries)
            .arg("-n")
            .arg("-M")
            .arg(libraries.join("rsyslog"))
            .arg("-f")
            .arg(&config)
            .arg("-i")
            .arg(dir.join("rsyslog.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self {
            _process: Process::spawn(&mut command),
            address,
            socket,
            output,
        };
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(address).is_err() || !server.socket.exists() {
            assert!(Instant::now() < deadline, "rsyslogd does not listen");
            thread::yield_now();
        }
        server
    }

    /// Where it takes records over TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it takes records as datagrams.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The records that it has received so far.
    ///
    /// # Panics
    /// If it wrote something else than JSON.
    pub fn received(&self) -> Vec<Value> {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(&self.output) {
            file.read_to_string(&mut text).expect("it is text");
        }
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("it writes JSON"))
            .collect()
    }
}

fn configuration(address: &SocketAddr, socket: &Path, output: &Path) -> String {
    let (port, socket, output) = (address.port(), socket.display(), output.display());
    let fields = [
        "msg",
        "syslogtag",
        "app-name",
        "msgid",
        "syslogfacility-text",
        "syslogseverity-text",
        "structured-data",
    ];
    let fields: Vec<_> = fields
        .iter()
        .map(|name| {
            let key = name.replace('-', "_");
            format!(
                "constant(value=\"\\\"{key}\\\":\\\"\") property(name=\"{name}\" format=\"json\")"
            )
        })
        .collect();
    let fields = fields.join(" constant(value=\"\\\",\") ");
    format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         module(load=\"imtcp\")\n\
         input(type=\"imuxsock\" Socket=\"{socket}\" UseSpecialParser=\"off\" ParseHostname=\"on\" RateLimit.Interval=\"0\")\n\
         input(type=\"imtcp\" Address=\"127.0.0.1\" Port=\"{port}\")\n\
         template(name=\"fields\" type=\"list\") {{ constant(value=\"{{\") {fields} constant(value=\"\\\"}}\\n\") }}\n\
         if $app-name == 'hotmerge' then action(type=\"omfile\" file=\"{output}\" template=\"fields\")\n"
    )
}
