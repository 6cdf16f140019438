//! What a call over HTTP costs: requests per second and the slowest hundredth through the HTTP front
//! of a real host, beside a bare axum handler that answers the same in a process of its own.
//!
//! Clients, which keep their connections, share the cores with the servers: both sides pay the same.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{Router, body::Bytes, routing::post};
use tempfile::TempDir;

use crate::{
    figure::{Figure, Figures, Pairs, micros},
    subject::{Subject, program, stage},
    worker::peer::Peer,
};

/// Connections at a time.
const CLIENTS: usize = 8;
/// Requests of each client in one turn.
const REQUESTS: usize = 1_000;
const WARM_UP: usize = 100;

/// A host's or a peer's address, which ends when dropped.
struct Served<T> {
    address: SocketAddr,
    _server: T,
}

pub(crate) fn run(subject: &Subject, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let hotmerge = program("hotmerge-program", "hotmerge")?;
    let worker = program("hotmerge-worker", "hotmerge-worker")?;
    let peer = bare()?;
    for (isolation, place) in [("host", "in the host"), ("process", "sandboxed")] {
        let dir = TempDir::new()?;
        let served = serve(&hotmerge, &worker, dir.path(), subject, isolation)?;
        let (mut rates, mut slowest) = (Pairs::default(), Pairs::default());
        turn(served.address, WARM_UP)?;
        turn(peer.address, WARM_UP)?;
        for _ in 0..rounds {
            let (rate, p99) = turn(served.address, REQUESTS)?;
            let (bare_rate, bare_p99) = turn(peer.address, REQUESTS)?;
            rates.push(rate, bare_rate);
            slowest.push(p99, bare_p99);
        }
        for (what, unit, pairs) in [("calls", "1/s", &rates), ("call p99", "µs", &slowest)] {
            let (value, other, ratio) = pairs.medians();
            figures.tell(&Figure {
                bench: format!("HTTP {what}, {place}, against bare axum"),
                unit,
                value,
                peer: Some(other),
                ratio: Some(ratio),
                ..Figure::default()
            })?;
        }
    }
    Ok(())
}

/// Requests per second of all clients, and the slowest hundredth in microseconds.
fn turn(address: SocketAddr, requests: usize) -> anyhow::Result<(f64, f64)> {
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| thread::spawn(move || client(address, requests)))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        let own = client
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))?;
        times.extend(own?);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort();
    let slow = times
        .get(times.len() * 99 / 100)
        .context("nothing was asked")?;
    Ok((rate, micros(*slow)))
}

/// Asks again and again on one connection.
fn client(address: SocketAddr, requests: usize) -> anyhow::Result<Vec<Duration>> {
    const REQUEST: &[u8] = b"POST /plugins/subject/variant HTTP/1.1\r\nhost: localhost\r\ncontent-length: 16\r\n\r\n0123456789abcdef";

    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    let mut times = Vec::with_capacity(requests);
    for _ in 0..requests {
        let began = Instant::now();
        stream.write_all(REQUEST)?;
        let mut read = 0;
        while !is_whole(&buffer[..read])? {
            let more = stream.read(&mut buffer[read..])?;
            anyhow::ensure!(more > 0, "the server closed the connection");
            read += more;
        }
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Whether an answer with one byte of body has arrived.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        return Ok(false);
    };
    anyhow::ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "the answer is not a success"
    );
    Ok(answer.len() > end + 4)
}

/// A host with its HTTP front on a free port.
fn serve(
    hotmerge: &Path,
    worker: &Path,
    dir: &Path,
    subject: &Subject,
    isolation: &str,
) -> anyhow::Result<Served<Killed>> {
    let plugins = dir.join("plugins");
    fs::create_dir(&plugins)?;
    stage(&plugins, "subject", &subject.variants[0])?;
    let config = dir.join("hotmerge.toml");
    let text = format!(
        "isolation = {isolation:?}\nworker = {worker:?}\nwatch = false\n\
         [[door.allow]]\nanybody = true\nrole = \"call\"\n\
         [http]\nlisten = [\"tcp:127.0.0.1:0\"]\n"
    );
    fs::write(&config, text)?;
    let mut child = Command::new(hotmerge)
        .args(["serve", "--log-format", "json", "--config"])
        .arg(&config)
        .arg("--plugin-dir")
        .arg(&plugins)
        .arg("--runtime-dir")
        .arg(dir.join("run"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .stderr(Stdio::piped())
        .spawn()?;
    let log = child.stderr.take().context("it is a pipe")?;
    let server = Killed(child);
    let mut address = None;
    let mut lines = BufReader::new(log).lines();
    for line in &mut lines {
        let record: serde_json::Value = serde_json::from_str(&line?)?;
        if let Some(place) = record["place"].as_str() {
            let place = place.strip_prefix("tcp:").context("it listens on TCP")?;
            address = Some(place.parse()?);
        }
        if record["message"] == "ready" {
            break;
        }
    }
    // Somebody has to read it.
    thread::spawn(move || lines.for_each(drop));
    Ok(Served {
        address: address.context("the host has no HTTP front")?,
        _server: server,
    })
}

/// A process that is ended when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The peer, in a process of its own.
fn bare() -> anyhow::Result<Served<Peer>> {
    let dir = TempDir::new()?;
    let path = dir.path().join("address");
    let server = Peer::start("http", &path)?;
    Ok(Served {
        address: fs::read_to_string(&path)?.parse()?,
        _server: server,
    })
}

/// Answers as the peer, and writes where into a file.
pub(crate) fn answer(path: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let router = Router::new().route(
            "/plugins/{name}/{method}",
            post(|_: Bytes| async { Bytes::from_static(b"1") }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        fs::write(path, listener.local_addr()?.to_string())?;
        println!("ready");
        axum::serve(listener, router).await?;
        Ok(())
    })
}
