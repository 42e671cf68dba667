//! One connection, with TLS or without.

use std::io;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::TlsConnector;

/// Either kind of stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, by TLS to the server of that name where `secure` says so. Fails as connecting and the handshake do; how long they may
/// take is the caller's to say.
pub async fn open(
    address: impl ToSocketAddrs,
    secure: Option<(&TlsConnector, ServerName<'static>)>,
) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some((tls, name)) = secure else { return Ok(Box::new(stream)) };
    Ok(Box::new(tls.connect(name, stream).await?))
}
