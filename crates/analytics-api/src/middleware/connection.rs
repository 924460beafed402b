//! What a request's connection is like: of HTTP/1.0, which knows no chunks, or closed on the caller's side.
//!
//! A caller that closes its side has hung up, or has only said all that it will. Neither the protocol nor the kernel
//! tells one from the other, so it gets its answer if that comes soon; later, its question ends.

use std::any::Any;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::{ConnectionType, Version};
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::{Error, HttpRequest};
use socket2::Socket;
use tokio::time::{Instant, interval_at};

/// How long a question is answered whose caller has closed its side.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for after that.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A second handle of a connection, which reads nothing from it.
struct Caller(Socket);

/// Keeps a handle of each connection for its requests.
pub(crate) fn remember(connection: &dyn Any, data: &mut Extensions) {
    let handle = connection
        .downcast_ref::<TcpStream>()
        .and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
    if let Some(handle) = handle {
        data.insert(Caller(Socket::from(handle)));
    }
}

pub(crate) async fn connection(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let knows_chunks = request.version() > Version::HTTP_10;
    let mut response = next.call(request).await?;
    if !knows_chunks && response.response().body().size() == BodySize::Stream {
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        // Its end is the connection's.
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// Completes when the caller has closed its side, and has been waiting for a while.
pub(crate) async fn hung_up(request: &HttpRequest) {
    let Some(Caller(caller)) = request.conn_data() else {
        return std::future::pending().await;
    };
    let mut look = interval_at(Instant::now() + HALF_CLOSED_PATIENCE, LOOK_INTERVAL);
    loop {
        look.tick().await;
        match caller.peek(&mut [MaybeUninit::uninit()]) {
            // The end, or a connection that is gone.
            Ok(0) => return,
            Err(error) if error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::Interrupted => {
                return;
            }
            // Another request, or nothing.
            Ok(_) | Err(_) => {}
        }
    }
}
