//! A client that costs next to nothing: blocking sockets, requests that are ready, answers that
//! are read but hardly looked at. What it costs is measured, and taken off the server's CPU.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::cpu;

/// How long an answer may take before the host is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection that is kept open.
pub(crate) struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).context("connect to the host")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            socket,
            read: vec![0; 64 << 10],
        })
    }

    /// Sends a request and gives the body of its answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is not 200.
    pub(crate) fn call(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.socket.write_all(request).context("send a request")?;
        let mut len = 0;
        let (head, body) = loop {
            let whole = match head_of(&self.read[..len])? {
                Some((head, body)) if len >= head + body => break (head, body),
                Some((head, body)) => head + body,
                None => len + 1,
            };
            if self.read.len() < whole {
                self.read.resize(whole.next_power_of_two(), 0);
            }
            match self.socket.read(&mut self.read[len..]) {
                Ok(0) => bail!("the host closed the connection"),
                Ok(n) => len += n,
                Err(error) => return Err(error).context("read an answer"),
            }
        };
        let body = &self.read[head..head + body];
        ensure!(
            self.read.starts_with(b"HTTP/1.1 200"),
            "the host answered: {}",
            String::from_utf8_lossy(&self.read[..len.min(600)])
        );
        Ok(body)
    }
}

/// Length of an answer's head, when it is whole, and of the body that it announces.
fn head_of(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let searched = &bytes[..bytes.len().min(4 << 10)];
    let Some(end) = searched.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("read an answer's head")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let length = length.context("an answer without a length")?;
    Ok(Some((end + 4, length)))
}

/// What a load took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// CPU of the clients.
    pub(crate) client_cpu: Duration,
    /// CPU of everything else in this process meanwhile: of the host, when it is here.
    pub(crate) host_cpu: Duration,
}

/// Sends `count` requests, of `requests` in turn, over `connections` at a time.
///
/// # Errors
/// A request fails.
pub(crate) fn load(
    address: SocketAddr,
    requests: &[Vec<u8>],
    count: usize,
    connections: usize,
) -> anyhow::Result<Load> {
    let next = AtomicUsize::new(0);
    let connected = (0..connections).map(|_| Client::connect(address));
    let connected: Vec<Client> = connected.collect::<Result<_, _>>()?;
    let (started, before, here) = (Instant::now(), cpu::process(), cpu::thread());
    let client_cpu: anyhow::Result<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = connected
            .into_iter()
            .map(|client| scope.spawn(|| one_client(client, &next, requests, count)))
            .collect();
        let joined = clients.into_iter().map(|client| match client.join() {
            Ok(cpu) => cpu,
            Err(_) => bail!("a client panicked"),
        });
        joined.sum()
    });
    let (wall, process, here) = (
        started.elapsed(),
        cpu::process() - before,
        cpu::thread() - here,
    );
    let client_cpu = client_cpu? + here;
    Ok(Load {
        wall,
        client_cpu,
        host_cpu: process.saturating_sub(client_cpu),
    })
}

fn one_client(
    mut client: Client,
    next: &AtomicUsize,
    requests: &[Vec<u8>],
    count: usize,
) -> anyhow::Result<Duration> {
    loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= count {
            return Ok(cpu::thread());
        }
        let answer = client.call(&requests[number % requests.len()])?;
        ensure!(
            answer.starts_with(br#"{"FailedRecordCount":0,"#),
            "records were refused: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(300)])
        );
    }
}
