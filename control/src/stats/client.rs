//! One request to a stats endpoint, every step of it bounded in time, its answer in length.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime;
use tokio::time::timeout;

use crate::config::Listen;
use crate::limits;

/// Asks for `path`, and returns status and body.
///
/// # Errors
/// What connecting or reading met, [`ErrorKind::TimedOut`], [`ErrorKind::UnexpectedEof`] for an
/// answer that was cut off, or [`ErrorKind::InvalidData`] for one that no stats endpoint gives.
pub fn get(address: &Listen, path: &str) -> io::Result<(u16, String)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match address {
            Listen::Tcp(address) => ask(in_time(TcpStream::connect(address)).await??, path).await,
            Listen::Unix(file) => ask(in_time(UnixStream::connect(file)).await??, path).await,
        }
    })
}

async fn ask<S>(stream: S, path: &str) -> io::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(path)
        .header(HOST, "localhost")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    // Its errors come with the answer, and it ends with the runtime.
    drop(tokio::spawn(connection));
    let answer = in_time(sender.send_request(request))
        .await?
        .map_err(|error| reason(&error))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), limits::STATS_ANSWER_BYTES_MAX);
    let body = in_time(body.collect())
        .await?
        .map_err(|error| reason(error.as_ref()))?;
    let body = String::from_utf8(body.to_bytes().into()).map_err(|_| malformed())?;
    Ok((status, body))
}

async fn in_time<T>(step: impl Future<Output = T>) -> io::Result<T> {
    timeout(limits::STATS_TIMEOUT, step)
        .await
        .map_err(|_| ErrorKind::TimedOut.into())
}

/// The I/O error below an error of HTTP; without one, the other side does not speak as it should.
fn reason(error: &(dyn Error + 'static)) -> io::Error {
    iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .map_or_else(malformed, |error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        })
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "this is not a stats endpoint")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// What [`get`] makes of a server that says `greeting` unasked, `answer` when asked, and then
    /// stays or goes.
    fn met(greeting: &'static [u8], answer: &'static [u8], stays: bool) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Listen::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(greeting);
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
            // Until the client has gone.
            while stays && matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
        });
        let got = get(&address, "/stats").map(|(status, _)| status);
        server.join().unwrap();
        got
    }

    #[test]
    fn who_is_no_endpoint_is_told_apart() {
        assert_eq!(met(b"", b"HTTP/1.1 200 OK\r\n\r\nx", false).unwrap(), 200);
        for (greeting, answer) in [
            (&b"SSH-2.0-x\r\n"[..], &b""[..]),
            (b"", b"SSH-2.0-x\r\n"),
            (b"", b"\x15\x03\x03\x00\x02\x02\x46"),
            (b"", b"HTTP/1.1 200 OK\r\nContent-Le"),
            (b"", b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe"),
            (b"", b""),
        ] {
            let error = met(greeting, answer, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}: {answer:?}");
            assert_eq!(error.to_string(), "this is not a stats endpoint");
        }
        // This may be one, which ended meanwhile.
        let cut = met(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", false);
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"] {
            let started = Instant::now();
            let error = met(b"", answer, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
            assert!(started.elapsed() < limits::STATS_TIMEOUT + Duration::from_secs(1));
        }
    }

    #[test]
    fn an_answer_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Listen::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let chunk = vec![b'x'; 1 << 20];
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while sent.is_ok() {
                sent = stream.write_all(&chunk);
            }
        });
        let error = get(&address, "/stats").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        server.join().unwrap();
    }
}
