//! The web application of the tests: says which Pod answers, and counts visitors in Redis.
//!
//! Compiled by `scripts/test-images` with rustc alone. Environment: `PORT` (8080), `REDIS` (`redis:6379`), `VERSION`.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

fn main() {
    end_on_signals();
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    println!("listening on {port}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            if let Err(error) = answer(stream) {
                println!("request failed: {error}");
            }
        });
    }
}

/// As process 1 of a container nothing ends this program unless it says so itself.
fn end_on_signals() {
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        unsafe { _exit(0) }
    }
    for number in [2, 15] {
        unsafe { signal(number, end) };
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let (status, body) = match path.as_str() {
        "/healthz" => ("200 OK", "ok\n".to_owned()),
        "/" => ("200 OK", page()),
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    println!("{} {path} {status}", stream.peer_addr()?);
    let kind = if body.starts_with('<') { "text/html; charset=utf-8" } else { "text/plain" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn page() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let version = env::var("VERSION").unwrap_or_else(|_| "1".to_owned());
    let visitors = match count_visitor() {
        Ok(count) => count.to_string(),
        Err(error) => {
            println!("redis: {error}");
            "unavailable".to_owned()
        }
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>minik</title></head>\n<body>\n<h1>Hello from minik</h1>\n\
         <p>Served by: {}</p>\n<p>Version: {version}</p>\n<p>Visitors: {visitors}</p>\n</body>\n</html>\n",
        host.trim()
    )
}

/// `INCR visitors` over the Redis protocol.
fn count_visitor() -> std::io::Result<u64> {
    let malformed = |what: &str| std::io::Error::other(format!("unexpected answer {what:?}"));
    let redis = env::var("REDIS").unwrap_or_else(|_| "redis:6379".to_owned());
    let address = redis.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, REDIS_TIMEOUT)?;
    stream.set_read_timeout(Some(REDIS_TIMEOUT))?;
    stream.write_all(b"*2\r\n$4\r\nINCR\r\n$8\r\nvisitors\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let number = line.trim().strip_prefix(':').ok_or_else(|| malformed(&line))?;
    number.parse().map_err(|_| malformed(&line))
}
