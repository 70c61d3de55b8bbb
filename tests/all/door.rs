//! The listener against clients that mean it no good, or are only slow: raw sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::host::{Host, until};

/// Waits one second for clients, and has room for four of them.
const MANIFEST: &str =
    "[server]\npatience_seconds = 1\nbody_grace_seconds = 1\nmax_connections = 4\n";

const HEALTH: &str = "GET /_shardmill/health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn host() -> Host {
    Host::with(&[], Some(MANIFEST))
}

fn connect(host: &Host) -> TcpStream {
    let address = host.url().strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    // A host that forgets a connection must not hold up the tests for ever.
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

/// What the host sends until it closes the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends as much as the host takes; it may hang up in between.
fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn is_well(host: &Host) -> bool {
    let mut stream = connect(host);
    send(
        &mut stream,
        HEALTH
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    );
    rest(&mut stream).starts_with("HTTP/1.1 200")
}

#[test]
fn clients_that_say_nothing_or_half_of_it_are_hung_up_on() {
    let host = host();
    for (what, sent) in [
        ("nothing", ""),
        ("half a request line", "GET /_shard"),
        (
            "half the headers",
            "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        ),
        ("half of HTTP/2's preface", "PRI * HTTP/2.0\r\n"),
    ] {
        let mut stream = connect(&host);
        send(&mut stream, sent.as_bytes());
        let answer = rest(&mut stream);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 408");
        assert!(refused, "{what}: {answer}");
    }
    assert!(is_well(&host));
}

#[test]
fn headers_that_come_byte_by_byte_do_not_hold_a_connection() {
    let host = host();
    let mut stream = connect(&host);
    let writer = stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        let mut writer = writer;
        send(
            &mut writer,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        );
        let mut bytes = 0;
        // Until the host has hung up.
        while writer.write_all(b"x").is_ok() {
            bytes += 1;
            #[expect(clippy::disallowed_methods, reason = "the slowness is what is tested")]
            std::thread::sleep(Duration::from_millis(50));
        }
        bytes
    });
    rest(&mut stream);
    let bytes = trickle.join().unwrap();
    assert!(
        bytes < 600,
        "hung up on after half a minute at the latest: {bytes}"
    );
}

#[test]
fn a_body_that_trickles_is_cut_off_and_told_why() {
    let host = host();
    let mut stream = connect(&host);
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\
                X-Amz-Target: Kinesis_20131202.PutRecords\r\n\
                Content-Type: application/x-amz-json-1.1\r\n\r\n{";
    send(&mut stream, head.as_bytes());
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn floods_of_headers_are_refused() {
    let host = host();
    let many = "X-More: 1\r\n".repeat(101);
    let long = format!("X-Long: {}\r\n", "x".repeat(200_000));
    for (what, headers) in [("many", many), ("long", long)] {
        let mut stream = connect(&host);
        let request =
            format!("GET /_shardmill/health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        send(&mut stream, request.as_bytes());
        let answer = rest(&mut stream);
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.is_empty(),
            "{what}: {answer}"
        );
    }
    assert!(is_well(&host));
}

#[tokio::test]
async fn silent_connections_beyond_the_limit_give_way() {
    let host = host();
    let held: Vec<_> = (0..12).map(|_| connect(&host)).collect();
    until("the silent ones are hung up on", async || is_well(&host)).await;
    drop(held);
}

#[test]
fn half_closed_connections_are_let_go() {
    let host = host();
    for _ in 0..12 {
        let mut stream = connect(&host);
        send(
            &mut stream,
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
        );
        stream.shutdown(Shutdown::Write).unwrap();
        rest(&mut stream);
    }
    assert!(is_well(&host));
}

#[test]
fn a_client_that_takes_no_answer_is_hung_up_on() {
    let host = host();
    // Answers of many requests fill the buffers of both sides, and nobody reads them.
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = connect(&host);
            let metrics = HEALTH.replace("health", "metrics");
            let requests = metrics.repeat(2_000);
            std::thread::spawn(move || {
                send(&mut stream, requests.as_bytes());
                stream
            })
        })
        .collect();
    let stuck: Vec<_> = stuck
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(is_well(&host));
    drop(stuck);
}

/// A frame of HTTP/2: RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method: GET`, `:scheme: http`, `:path: /`, `:authority: localhost`, by RFC 7541.
const REQUEST: &[u8] = b"\x82\x86\x84\x41\x09localhost";

#[test]
fn requests_that_are_taken_back_at_once_end_the_connection() {
    let host = host();
    let mut stream = connect(&host);
    let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0..2_000u32 {
        let id = 2 * number + 1;
        flood.extend(frame(HEADERS, 4, id, REQUEST));
        flood.extend(frame(RESET, 0, id, &8u32.to_be_bytes()));
    }
    send(&mut stream, &flood);
    rest(&mut stream);
    assert!(is_well(&host));
}

#[test]
fn header_blocks_without_end_end_the_connection() {
    let host = host();
    let mut stream = connect(&host);
    let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    flood.extend(frame(HEADERS, 0, 1, REQUEST));
    // A literal header that is not indexed: a name of one byte, a value of 100.
    let header = [&[0, 1, b'a', 100][..], &[b'x'; 100]].concat();
    for _ in 0..2_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &header.repeat(100)));
    }
    send(&mut stream, &flood);
    rest(&mut stream);
    assert!(is_well(&host));
}
