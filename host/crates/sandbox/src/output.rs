//! What a guest writes: lines of its log, its standard output and its standard error, kept up to
//! a limit and counted beyond it. A chatty handler does not fail, it is cut.
//!
//! A WASI command's standard output is no log but its response, with a limit of its own.

use shardmill_core::limits::{MAX_EVENT_BYTES, STDERR_TAIL_BYTES};
use shardmill_core::sandbox::{LogLevel, LogLine};

/// Largest JSON response, bytes. Lambda answers a larger one with "Response payload size exceeded
/// maximum allowed payload size (6291556 bytes)."
pub(crate) const MAX_RESPONSE_BYTES: usize = MAX_EVENT_BYTES + 100;

/// Where a guest writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One attempt's output.
pub(crate) struct Output {
    lines: Vec<LogLine>,
    allowed: usize,
    kept: usize,
    cut: u64,
    open_stdout: Vec<u8>,
    open_stderr: Vec<u8>,
    tail: Vec<u8>,
    response: Option<Response>,
}

/// A WASI command's standard output.
#[derive(Default)]
pub(crate) struct Response {
    /// What it wrote, up to [`MAX_RESPONSE_BYTES`].
    pub(crate) bytes: Vec<u8>,
    /// All that it wrote, bytes.
    pub(crate) size: u64,
}

/// Output in the form of a report.
pub(crate) struct Collected {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) stderr_tail: String,
    pub(crate) cut_bytes: u64,
}

impl Output {
    /// Keeps at most `allowed` bytes of log, standard output and standard error together.
    pub(crate) fn new(allowed: usize) -> Self {
        Self {
            lines: Vec::new(),
            allowed,
            kept: 0,
            cut: 0,
            open_stdout: Vec::new(),
            open_stderr: Vec::new(),
            tail: Vec::new(),
            response: None,
        }
    }

    /// Takes standard output as the response rather than as log.
    pub(crate) fn take_stdout_as_response(&mut self) {
        self.response = Some(Response::default());
    }

    /// The response, if standard output was taken as one.
    pub(crate) fn response(&mut self) -> Option<Response> {
        self.response.take()
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => {
                if let Some(response) = &mut self.response {
                    let room = MAX_RESPONSE_BYTES - response.bytes.len();
                    response
                        .bytes
                        .extend_from_slice(&bytes[..bytes.len().min(room)]);
                    response.size += bytes.len() as u64;
                    return;
                }
            }
            Stream::Stderr => self.remember_tail(bytes),
        }
        let bytes = self.cut(bytes);
        let (open, level) = match stream {
            Stream::Stdout => (&mut self.open_stdout, LogLevel::Info),
            Stream::Stderr => (&mut self.open_stderr, LogLevel::Warn),
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(piece);
            if let Some(line) = open.strip_suffix(b"\n") {
                self.lines.push(line_of(level, line));
                open.clear();
            }
        }
    }

    /// A text of the host call `log`.
    pub(crate) fn log(&mut self, level: LogLevel, text: &[u8]) {
        // One more byte, as for a line's end, so that empty texts do not come for nothing.
        if self.kept >= self.allowed {
            self.cut += text.len() as u64;
            return;
        }
        self.kept += 1;
        let text = self.cut(text);
        self.lines.push(line_of(level, text));
    }

    /// The end of standard error, lossily decoded.
    pub(crate) fn stderr_tail(&self) -> String {
        let from = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
        String::from_utf8_lossy(&self.tail[from..]).into_owned()
    }

    pub(crate) fn collect(mut self) -> Collected {
        let stderr_tail = self.stderr_tail();
        for (open, level) in [
            (self.open_stdout, LogLevel::Info),
            (self.open_stderr, LogLevel::Warn),
        ] {
            if !open.is_empty() {
                self.lines.push(line_of(level, &open));
            }
        }
        Collected {
            lines: self.lines,
            stderr_tail,
            cut_bytes: self.cut,
        }
    }

    fn cut<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (kept, rest) = bytes.split_at(bytes.len().min(self.allowed - self.kept));
        self.kept += kept.len();
        self.cut += rest.len() as u64;
        kept
    }

    fn remember_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        if self.tail.len() + bytes.len() > 2 * STDERR_TAIL_BYTES {
            let from = self.tail.len().saturating_sub(STDERR_TAIL_BYTES);
            self.tail.drain(..from);
        }
        self.tail.extend_from_slice(bytes);
    }
}

fn line_of(level: LogLevel, line: &[u8]) -> LogLine {
    LogLine {
        level,
        text: String::from_utf8_lossy(line).into_owned(),
    }
}
