//! Blobs: read, whole or in part, and sent, at once or piece by piece.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::error::Refusal;
use super::path::{Digest, checked};
use super::query;
use super::store::Store;

/// Large enough that a layer is not read in crumbs.
const CHUNK: usize = 256 << 10;
const DIGEST: &str = "docker-content-digest";
const UPLOAD: &str = "docker-upload-uuid";

pub(super) async fn blob(
    store: &Store,
    name: &str,
    digest: &Digest,
    (method, headers): (Method, HeaderMap),
) -> Result<Response, Refusal> {
    match method {
        Method::GET | Method::HEAD => {
            let size = store.blob(name, digest).ok_or_else(|| Refusal::no_blob(digest.as_str()))?;
            content(&store.blob_file(digest), digest, size, &headers, method == Method::HEAD).await
        }
        Method::DELETE => match store.remove_blob(name, digest)? {
            true => Ok(StatusCode::ACCEPTED.into_response()),
            false => Err(Refusal::no_blob(digest.as_str())),
        },
        _ => Err(Refusal::method()),
    }
}

async fn content(
    path: &Path,
    digest: &Digest,
    size: u64,
    headers: &HeaderMap,
    head: bool,
) -> Result<Response, Refusal> {
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (first, last, status) = match asked.map(|text| part_of(text, size)) {
        None | Some(Asked::Whole) => (0, size.saturating_sub(1), StatusCode::OK),
        Some(Asked::Part(first, last)) => (first, last, StatusCode::PARTIAL_CONTENT),
        Some(Asked::Outside) => {
            let mut refused = Refusal::range("the range is outside").into_response();
            if let Ok(value) = format!("bytes */{size}").parse() {
                refused.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(refused);
        }
    };
    let length = if size == 0 { 0 } else { last - first + 1 };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, length)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{}\"", digest.as_str()))
        .header(DIGEST, digest.as_str());
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
    }
    let body = match head {
        true => Body::empty(),
        false => {
            let mut file = tokio::fs::File::open(path).await?;
            file.seek(SeekFrom::Start(first)).await?;
            Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK))
        }
    };
    response.body(body).map_err(|error| std::io::Error::other(error).into())
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Several ranges, or another unit: a server may answer with everything.
    Whole,
    Part(u64, u64),
    Outside,
}

fn part_of(range: &str, size: u64) -> Asked {
    let Some(range) = range.strip_prefix("bytes=").filter(|range| !range.contains(',')) else {
        return Asked::Whole;
    };
    let Some((first, last)) = range.split_once('-') else { return Asked::Whole };
    let part = match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), "") => (first, size.saturating_sub(1)),
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last >= first => (first, last.min(size.saturating_sub(1))),
            _ => return Asked::Whole,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(0) => return Asked::Outside,
            Ok(length) => (size.saturating_sub(length), size.saturating_sub(1)),
            Err(_) => return Asked::Whole,
        },
        _ => return Asked::Whole,
    };
    if part.0 >= size { Asked::Outside } else { Asked::Part(part.0, part.1) }
}

/// `POST .../blobs/uploads/`: a mount, a whole blob, or the beginning of one in parts.
pub(super) async fn begin(store: &Arc<Store>, name: &str, request: Request) -> Result<Response, Refusal> {
    let uri = request.uri().clone();
    if let Some(digest) = query(&uri, "mount") {
        let digest = Digest::parse(&digest)?;
        let there = match query(&uri, "from") {
            Some(from) => store.blob(&checked(&from)?, &digest).is_some(),
            None => true,
        };
        if there && store.mount(name, &digest)? {
            return created(name, &digest);
        }
    }
    let id = store.begin_upload()?;
    if let Some(digest) = query(&uri, "digest") {
        let digest = Digest::parse(&digest)?;
        let file = store.upload_file(&id).ok_or_else(|| Refusal::no_upload(&id))?;
        append(&file, &id, request).await?;
        return finish(store, name, file, digest).await;
    }
    Ok(accepted(name, &id, 0))
}

/// An upload that has begun.
pub(super) async fn upload(
    store: &Arc<Store>,
    name: &str,
    id: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let file = store.upload_file(id).ok_or_else(|| Refusal::no_upload(id))?;
    match *request.method() {
        Method::GET => {
            let size = tokio::fs::metadata(&file).await?.len();
            let mut response = accepted(name, id, size);
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Method::PATCH => {
            let size = append(&file, id, request).await?;
            Ok(accepted(name, id, size))
        }
        Method::PUT => {
            let digest = query(request.uri(), "digest")
                .ok_or_else(|| Refusal::digest("the query does not say the digest"))?;
            let digest = Digest::parse(&digest)?;
            append(&file, id, request).await?;
            finish(store, name, file, digest).await
        }
        Method::DELETE => {
            tokio::fs::remove_file(&file).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Refusal::method()),
    }
}

/// Writes what comes behind what has come; returns how much there is. A part that breaks off is forgotten, so that it can
/// be sent again.
async fn append(path: &Path, id: &str, request: Request) -> Result<u64, Refusal> {
    let file = std::fs::OpenOptions::new().append(true).open(path)?;
    if file.try_lock().is_err() {
        return Err(Refusal::busy_upload(id));
    }
    let mut file = tokio::fs::File::from_std(file);
    let before = file.metadata().await?.len();
    let said = said_range(request.headers())?;
    if let Some((first, _)) = said.filter(|(first, _)| *first != before) {
        return Err(Refusal::range(format!("{before} is the next byte, not {first}")));
    }
    let mut after = before;
    let mut parts = request.into_body().into_data_stream();
    let written: Result<(), Refusal> = async {
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| Refusal::broken_upload(error.to_string()))?;
            file.write_all(&part).await?;
            after += part.len() as u64;
        }
        file.flush().await?;
        match said {
            Some((first, last)) if last - first + 1 != after - before => Err(Refusal::broken_upload(
                format!("{} bytes came, not {}", after - before, last - first + 1),
            )),
            _ => Ok(()),
        }
    }
    .await;
    if written.is_err() {
        file.set_len(before).await?;
    }
    written.map(|()| after)
}

/// `Content-Range: FIRST-LAST`, with or without `bytes`.
fn said_range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let text = text.trim_start_matches("bytes ").trim_start_matches("bytes=");
    let numbers = text.split('/').next().and_then(|range| {
        let (first, last) = range.split_once('-')?;
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    match numbers {
        Some((first, last)) if first <= last => Ok(Some((first, last))),
        _ => Err(Refusal::range(format!("{text:?} is no range"))),
    }
}

async fn finish(store: &Arc<Store>, name: &str, file: PathBuf, digest: Digest) -> Result<Response, Refusal> {
    let (store, of, said) = (store.clone(), name.to_owned(), digest.clone());
    // Reading a layer again takes a while: other requests go on meanwhile.
    let finished = tokio::task::spawn_blocking(move || store.finish_upload(&of, &file, &said));
    match finished.await.map_err(std::io::Error::other)?? {
        true => created(name, &digest),
        false => Err(Refusal::digest(format!("what came does not have the digest {}", digest.as_str()))),
    }
}

fn created(name: &str, digest: &Digest) -> Result<Response, Refusal> {
    Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{}", digest.as_str()))
        .header(DIGEST, digest.as_str())
        .header(header::CONTENT_LENGTH, 0)
        .body(Body::empty())
        .map_err(|error| std::io::Error::other(error).into())
}

fn accepted(name: &str, id: &str, size: u64) -> Response {
    let response = Response::builder()
        .status(StatusCode::ACCEPTED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))
        .header(header::RANGE, format!("0-{}", size.saturating_sub(1)))
        .header(UPLOAD, id);
    response.body(Body::empty()).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let check = |range: &str, expect: Asked| assert_eq!(part_of(range, 10), expect, "{range}");
        check("bytes=0-4", Asked::Part(0, 4));
        check("bytes=5-", Asked::Part(5, 9));
        check("bytes=-3", Asked::Part(7, 9));
        check("bytes=0-99", Asked::Part(0, 9));
        check("bytes=10-", Asked::Outside);
        check("bytes=-0", Asked::Outside);
        check("bytes=4-2", Asked::Whole);
        check("bytes=0-1,3-4", Asked::Whole);
        check("lines=0-1", Asked::Whole);
    }
}
