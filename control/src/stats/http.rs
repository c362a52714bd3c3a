//! As much of HTTP as one read-only endpoint and its reader need, with every length and time
//! bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::limits;

/// A TCP or a Unix connection.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Bounds every read and write that follows.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean "no timeout".
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request's first line, as far as we look at it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or another.
    pub method: String,
    /// The path, without a query.
    pub path: String,
}

/// Reads a request's head.
///
/// # Errors
/// The status to answer with: 400, 408 or 431; `None` if there is nobody to answer.
pub fn read_request(stream: &mut Stream) -> Result<Request, Option<u16>> {
    let deadline = Instant::now() + limits::STATS_TIMEOUT;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !ends_head(&head) {
        if head.len() >= limits::STATS_REQUEST_BYTES_MAX {
            return Err(Some(431));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Some(408));
        }
        stream.set_timeout(left).map_err(|_| None)?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(None),
            Ok(len) => head.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Some(408));
            }
            Err(_) => return Err(None),
        }
    }
    parse_request(&head).ok_or(Some(400))
}

fn ends_head(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n")
        || head.windows(2).any(|window| window == b"\n\n")
}

fn parse_request(head: &[u8]) -> Option<Request> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return None;
    }
    let path = target.split('?').next()?;
    Some(Request {
        method: method.into(),
        path: path.into(),
    })
}

/// An answer.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// MIME type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A line of text.
    pub fn text(status: u16, line: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{line}\n"),
        }
    }

    /// Sends it; the connection ends with it.
    pub fn send(&self, stream: &mut Stream) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if self.status == 405 {
            "Allow: GET\r\n"
        } else {
            ""
        };
        let message = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.body.len(),
            self.body
        );
        stream.set_timeout(limits::STATS_TIMEOUT)?;
        stream.write_all(message.as_bytes())
    }
}

/// Closes a connection so that the answer arrives: what the client still sends is read for a
/// while, for the kernel resets a connection that is closed with unread bytes.
pub fn linger(mut stream: Stream, time: Duration) {
    let deadline = Instant::now() + time;
    let closed = match &stream {
        Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
    };
    let mut scrap = [0; 4096];
    while closed.is_ok() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_timeout(left).is_err() {
            return;
        }
        if !matches!(stream.read(&mut scrap), Ok(1..)) {
            return;
        }
    }
}

/// Asks for `path`, and returns status and body.
pub fn get(stream: &mut Stream, path: &str) -> io::Result<(u16, String)> {
    stream.set_timeout(limits::STATS_TIMEOUT)?;
    // 1.0: the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(limits::STATS_ANSWER_BYTES_MAX + 1)
        .read_to_end(&mut answer)?;
    let malformed = || io::Error::new(ErrorKind::InvalidData, "this is not a stats endpoint");
    if answer.len() as u64 > limits::STATS_ANSWER_BYTES_MAX {
        return Err(malformed());
    }
    let answer = String::from_utf8(answer).map_err(|_| malformed())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let mut words = head.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok());
    version
        .and(status)
        .map(|status| (status, body.to_owned()))
        .ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let parsed = |head: &str| parse_request(head.as_bytes()).map(|r| (r.method, r.path));
        let get = |path: &str| Some(("GET".to_owned(), path.to_owned()));
        assert_eq!(
            parsed("GET /stats HTTP/1.1\r\nHost: x\r\n\r\n"),
            get("/stats")
        );
        assert_eq!(parsed("GET /stats?x=1 HTTP/1.0\n\n"), get("/stats"));
        for wrong in [
            "",
            "GET\r\n\r\n",
            "GET /stats\r\n\r\n",
            "GET  /stats HTTP/1.1\r\n\r\n",
            "GET stats HTTP/1.1\r\n\r\n",
            "GET /stats HTTP/2\r\n\r\n",
            "GET /stats HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse_request(&[0xff, b' ', b'/', b'\n', b'\n']), None);
    }
}
