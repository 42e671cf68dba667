//! Connections that go to an endpoint unread, by the name that their first TLS message asks for.

use std::io;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::forward::Forwarder;
use super::rules::{Action, Port, Stream};

/// The longest first message: a record of TLS and its head.
const LONGEST: usize = 16 * 1024 + 5;

/// Reads who is asked for, and gives the stream back with all that was read.
pub(super) async fn hello(
    mut stream: TcpStream,
) -> io::Result<(String, impl AsyncRead + AsyncWrite + Send + Unpin + 'static)> {
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::new();
    let name = loop {
        let from = seen.len();
        if from > LONGEST || stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        acceptor.read_tls(&mut &seen[from..])?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => break accepted.client_hello().server_name().unwrap_or_default().to_owned(),
            Err((error, _alert)) => return Err(io::Error::other(error)),
        }
    };
    let (read, write) = stream.into_split();
    Ok((name, tokio::io::join(io::Cursor::new(seen).chain(read), write)))
}

/// The stream that a name belongs to, unless a listener for requests fits the name better.
pub(super) fn of<'a>(port: &'a Port, name: &str) -> Option<&'a Stream> {
    port.streams.get(name).filter(|_| port.streams.fit(name) >= port.sites.fit(name))
}

/// Bytes both ways until both ends have ended.
pub(super) async fn splice<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: S,
    act: &Action,
    forwarder: &Forwarder,
) {
    let Some(endpoint) = forwarder.stream_to(act).await else { return };
    let connecting = tokio::time::timeout(act.settings.connect_timeout, TcpStream::connect(endpoint)).await;
    let Ok(Ok(mut server)) = connecting else {
        tracing::debug!(%endpoint, "an endpoint takes no connection");
        return;
    };
    let _ = server.set_nodelay(true);
    // How a connection ends is its ends' affair.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
