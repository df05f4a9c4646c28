//! nginx, set up to do what the sidecar does: pass everything on as it comes, over connections that stay open.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::process::Process;

/// A running nginx.
pub(super) struct Nginx {
    pub address: SocketAddr,
    pub version: String,
    pub process: Process,
    _folder: TempDir,
}

/// Starts `program` before `upstream` with so many workers; nothing if there is no such program.
pub(super) fn start(program: &Path, upstream: SocketAddr, workers: usize) -> anyhow::Result<Option<Nginx>> {
    let version = match Command::new(program).arg("-v").output() {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned(),
        // Debian keeps it where only the superuser's PATH leads.
        Err(error) if error.kind() == ErrorKind::NotFound && program == Path::new("nginx") => {
            let usual = Path::new("/usr/sbin/nginx");
            return if usual.exists() { start(usual, upstream, workers) } else { Ok(None) };
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot run {}", program.display())),
    };
    let folder = tempfile::tempdir().context("no folder for nginx")?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let path = folder.path().join("nginx.conf");
    std::fs::write(&path, config(folder.path(), address, upstream, workers))?;
    let child = Command::new(program)
        .arg("-e")
        .arg(folder.path().join("error.log"))
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let mut nginx = Nginx { address, version, process: Process(child), _folder: folder };
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        if !nginx.process.runs() || Instant::now() > deadline {
            let log = std::fs::read_to_string(path.with_file_name("error.log")).unwrap_or_default();
            bail!("nginx does not start: {}", log.trim());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(nginx))
}

/// What nginx is told. Its default of a thousand requests a connection would have it reconnect all the time.
fn config(folder: &Path, listen: SocketAddr, upstream: SocketAddr, workers: usize) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes {workers};
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{
    worker_connections 8192;
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
    upstream server {{
        server {upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_both_ends_and_keeps_connections() {
        let text = config(Path::new("/tmp/x"), ([127, 0, 0, 1], 81).into(), ([127, 0, 0, 1], 82).into(), 3);
        for line in [
            "worker_processes 3;",
            "listen 127.0.0.1:81;",
            "server 127.0.0.1:82;",
            "proxy_http_version 1.1;",
            "proxy_set_header Connection \"\";",
            "proxy_buffering off;",
            "pid /tmp/x/pid;",
        ] {
            assert!(text.lines().any(|had| had.trim() == line), "{line} in {text}");
        }
        assert_eq!(text.matches("keepalive_requests 1000000000;").count(), 2, "on both sides");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn a_program_that_is_not_there_is_no_error() {
        let nobody = ([127, 0, 0, 1], 9).into();
        assert!(start(Path::new("/does/not/exist/nginx"), nobody, 1).unwrap().is_none());
    }
}
