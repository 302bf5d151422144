//! Where a `longshore dev` of this user serves, so that other commands find it without settings.
//!
//! Each `dev` keeps a file of its own, which only the user can read and which stays locked as long
//! as the process lives. A file without a lock was left by a process that was killed, whatever
//! listens at its address now; the next command that finds it removes it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest wait for a server to say that it is alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// The most bytes of a file.
const MAX_BYTES: u64 = 1_000;

/// What a file says.
#[derive(Serialize, Deserialize)]
struct Place {
    /// Where the API is served.
    address: SocketAddr,
}

impl Place {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A file that tells where this process serves, until it is dropped.
pub(crate) struct Announcement {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Without a lock the file counts as left over.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tells other commands of this user that this process serves the API at this address. `None` if
/// there is no folder for that.
pub(crate) fn announce(address: SocketAddr) -> Option<Announcement> {
    let folder = folder()?;
    announce_in(&folder, address).ok()
}

fn announce_in(folder: &Path, mut address: SocketAddr) -> std::io::Result<Announcement> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let pid = std::process::id();
    let (path, new) = (folder.join(format!("dev-{pid}.json")), folder.join(format!(".dev-{pid}")));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // It gets its name with its lock: a file that can be found and has no lock is left over.
    file.lock()?;
    file.write_all(&serde_json::to_vec(&Place { address })?)?;
    std::fs::rename(&new, &path)?;
    Ok(Announcement { path, _file: file })
}

/// The URL of the `longshore dev` of this user that was started last, if one serves.
pub(crate) async fn find() -> Option<String> {
    let folder = folder()?;
    for place in places(&folder) {
        if is_alive(place.address).await {
            return Some(place.url());
        }
    }
    None
}

/// Where the files are.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match variable("XDG_RUNTIME_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&variable("HOME")?).join(".local/state"),
    };
    folder.is_absolute().then(|| folder.join("longshore"))
}

/// What the files of living processes say, the newest first. Removes the others.
fn places(folder: &Path) -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(SystemTime, Place)> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with("dev-") && name.ends_with(".json"))
        })
        .filter_map(|entry| read(&entry.path()))
        .collect();
    found.sort_by_key(|(written, _)| std::cmp::Reverse(*written));
    found.into_iter().map(|(_, place)| place).collect()
}

fn read(path: &Path) -> Option<(SystemTime, Place)> {
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => {
            let _ = std::fs::remove_file(path);
            return None;
        }
        // A file system without locks: the address itself has to tell.
        Err(TryLockError::Error(_)) => {}
    }
    let written = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some((written, serde_json::from_str(&text).ok()?))
}

/// Whether a server answers `GET /healthz` there.
async fn is_alive(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(ALIVE_WITHIN, asked).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_the_users_alone_and_ends_with_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("longshore");
        let address: SocketAddr = "0.0.0.0:7700".parse().unwrap();
        let announcement = announce_in(&folder, address).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&announcement.path)), (0o700, 0o600));
        let urls: Vec<String> = places(&folder).iter().map(Place::url).collect();
        assert_eq!(urls, ["http://127.0.0.1:7700"]);
        drop(announcement);
        assert_eq!(places(&folder).len(), 0);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("dev-1.json");
        std::fs::write(&left, r#"{"address": "127.0.0.1:1"}"#).unwrap();
        let foreign = folder.path().join("notes.json");
        std::fs::write(&foreign, "{}").unwrap();
        assert_eq!(places(folder.path()).len(), 0);
        assert!(!left.exists() && foreign.exists());
    }
}
