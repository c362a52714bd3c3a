//! The stats endpoint: `GET /stats`, `GET /decisions` and `GET /healthz`, read only.
//!
//! One thread serves all connections, at most
//! [`STATS_CONNECTIONS_MAX`](limits::STATS_CONNECTIONS_MAX) at once; who comes above that waits in
//! the kernel's queue. Every connection carries one request, is bounded in time, and its head in
//! length; a request's body is not read. The thread starts before EAL does, so that it is not
//! pinned to the control lcore.

use std::convert::Infallible;
use std::fs;
use std::future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::config::Listen;
use crate::limits;

/// The pause after a failure to accept: out of file descriptors, mostly, so others have to close
/// first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";

/// Where the answers come from. They are given at once: the one thread waits for them.
pub trait Source: Send + Sync + 'static {
    /// The stats document, or why there is none yet.
    fn stats(&self) -> Result<String, String>;

    /// The last changes of plans, or why there are none yet.
    fn decisions(&self) -> Result<String, String>;

    /// Whether the gateway works, or the reason why not.
    fn health(&self) -> Result<(), String>;
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An endpoint that listens. Its thread and a Unix socket's file go with it.
pub struct Server {
    file: Option<PathBuf>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves from a thread of its own.
    pub fn start(listen: &Listen, source: Arc<dyn Source>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(bind(listen))?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("stats".into()).spawn(move || {
            runtime.block_on(async {
                drop(tokio::spawn(accept(listener, source)));
                // It ends by being dropped, and with it the runtime and all connections.
                let _ = stopped.await;
            });
        })?;
        Ok(Self {
            file: match listen {
                Listen::Tcp(_) => None,
                Listen::Unix(path) => Some(path.clone()),
            },
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // While we still listen: nobody takes the socket for a dead one, and nobody's new one goes.
        if let Some(file) = &self.file {
            // Nobody can be told, and the next start replaces a dead socket.
            let _ = fs::remove_file(file);
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by then.
            let _ = thread.join();
        }
    }
}

async fn bind(listen: &Listen) -> io::Result<Listener> {
    match listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        Listen::Unix(path) => bind_unix(path).await.map(Listener::Unix),
    }
}

/// Binds a Unix socket; one that a killed process left behind is replaced.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        let connected = UnixStream::connect(path).await;
        if connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            fs::remove_file(path)?;
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn accept(listener: Listener, source: Arc<dyn Source>) {
    let places = Arc::new(Semaphore::new(limits::STATS_CONNECTIONS_MAX));
    // Nobody closes the semaphore, so this goes on.
    while let Ok(place) = places.clone().acquire_owned().await {
        let source = source.clone();
        let accepted = match &listener {
            Listener::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| tokio::spawn(serve(stream, source, place))),
            Listener::Unix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| tokio::spawn(serve(stream, source, place))),
        };
        if accepted.is_err() {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Serves one connection, which holds its place until it ends.
async fn serve<S>(stream: S, source: Arc<dyn Source>, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), source.as_ref());
        future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::STATS_TIMEOUT)
        .max_buf_size(limits::STATS_REQUEST_BYTES_MAX)
        .keep_alive(false)
        // Who has sent all it has to say still wants its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, is too slow or does not speak HTTP is its own business.
    let _ = timeout(limits::STATS_CONNECTION_TIME, connection).await;
    drop(place);
}

fn answer(method: &Method, path: &str, source: &dyn Source) -> Response<Full<Bytes>> {
    let json = |body| whole(StatusCode::OK, "application/json", body);
    let find: &dyn Fn() -> Result<Response<Full<Bytes>>, String> = match path {
        "/stats" => &|| source.stats().map(json),
        "/decisions" => &|| source.decisions().map(json),
        "/healthz" => &|| source.health().map(|()| line(StatusCode::OK, "ok")),
        _ => {
            let there = "there is /stats, /decisions and /healthz";
            return line(StatusCode::NOT_FOUND, there);
        }
    };
    // The answer to HEAD is that to GET, from which hyper leaves out the body.
    if method != Method::GET && method != Method::HEAD {
        let mut answer = line(StatusCode::METHOD_NOT_ALLOWED, "read only: use GET");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    find().unwrap_or_else(|reason| line(StatusCode::SERVICE_UNAVAILABLE, &reason))
}

/// A line of text.
fn line(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    whole(status, TEXT, format!("{text}\n"))
}

fn whole(status: StatusCode, mime_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(mime_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests;
