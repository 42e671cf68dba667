//! `/logs`: the node's own log files, as upstream's kubelet serves them: a folder is a page of links, a file is its text.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

use super::routes::{Body, Refusal, text};

/// The folder that is served.
pub const LOGS: &str = "/var/log";

/// Read and sent at a time.
const CHUNK: usize = 32 << 10;

fn missing() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

/// What lies at `parts` below `root`. 404 for what is not there, or lies elsewhere.
pub async fn answer(root: &Path, parts: &[&str]) -> Result<Response<Body>, Refusal> {
    let relative = parts.join("/");
    // Links are followed, as those of containers' logs; what they lead to must be below the root as well.
    let root = fs::canonicalize(root).await.map_err(|_| missing())?;
    let path = fs::canonicalize(root.join(relative.trim_start_matches('/'))).await.map_err(|_| missing())?;
    if !path.starts_with(&root) {
        return Err(missing());
    }
    if fs::metadata(&path).await.map_err(|_| missing())?.is_dir() {
        folder(&path).await.map_err(Refusal::internal)
    } else {
        file(&path).await.map_err(Refusal::internal)
    }
}

async fn folder(path: &Path) -> io::Result<Response<Body>> {
    let mut names = Vec::new();
    let mut entries = fs::read_dir(path).await?;
    while let Some(entry) = entries.next_entry().await? {
        let end = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{end}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let escaped = |name: &str| {
        name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
    };
    let href = |name: &str| escaped(name).replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let links = names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", href(name), escaped(name)));
    let mut response = text(StatusCode::OK, format!("<pre>\n{}</pre>\n", links.collect::<Vec<_>>().concat()));
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

async fn file(path: &Path) -> io::Result<Response<Body>> {
    let file = File::open(path).await?;
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = file.read_buf(&mut chunk).await?;
        Ok::<_, io::Error>((read > 0).then(|| (Frame::data(chunk.freeze()), file)))
    });
    let mut response = text(StatusCode::OK, Bytes::new());
    *response.body_mut() = BodyExt::boxed(StreamBody::new(Box::pin(chunks)));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn folders_are_links_files_are_text_and_nothing_else_is_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("pods")).expect("folders");
        std::fs::write(root.join("pods/a&b.log"), "x".repeat(CHUNK + 1)).expect("a file");
        std::fs::write(dir.path().join("secret"), "s").expect("a file");
        std::os::unix::fs::symlink(root.join("pods/a&b.log"), root.join("link")).expect("a link");
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("out")).expect("a link");
        let check = async |parts: &[&str], expect: Result<&str, StatusCode>| {
            let found = match answer(&root, parts).await {
                Ok(response) => {
                    let body = response.into_body().collect().await.expect("a body").to_bytes();
                    Ok(String::from_utf8_lossy(&body).into_owned())
                }
                Err(Refusal(status, _)) => Err(status),
            };
            assert_eq!(found, expect.map(str::to_owned), "{parts:?}");
        };
        let links = "<pre>\n<a href=\"link\">link</a>\n<a href=\"out\">out</a>\n<a href=\"pods/\">pods/</a>\n</pre>\n";
        check(&[""], Ok(links)).await;
        check(&["pods"], Ok("<pre>\n<a href=\"a&amp;b.log\">a&amp;b.log</a>\n</pre>\n")).await;
        let whole = "x".repeat(CHUNK + 1);
        check(&["pods", "a&b.log"], Ok(&whole)).await;
        check(&["link"], Ok(&whole)).await;
        check(&["none"], Err(StatusCode::NOT_FOUND)).await;
        check(&["out"], Err(StatusCode::NOT_FOUND)).await;
        check(&["..", "secret"], Err(StatusCode::NOT_FOUND)).await;
        check(&["/etc/passwd"], Err(StatusCode::NOT_FOUND)).await;
    }
}
