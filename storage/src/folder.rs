//! Checks whether something on this host makes it impossible to write results to a folder.
//!
//! Deliberately absent: permissions, free space and the existence of the folder. The writer creates
//! folders, perhaps as another user on another host.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};

use tokio::sync::Semaphore;

use crate::Error;
use crate::location::Location;

/// The number of checks in progress. A check on a file system that hangs occupies a thread.
static LOOKS: Semaphore = Semaphore::const_new(8);

/// Fails if something else stands where `prefix` needs a folder, or if no process can follow the
/// path. Locations in an object store are not checked, nor any location while too many checks hang.
/// Takes as long as the file system does.
pub async fn check_folder(prefix: &str) -> Result<(), Error> {
    let Location::Local(path) = Location::parse(prefix)? else { return Ok(()) };
    let Ok(permit) = LOOKS.try_acquire() else { return Ok(()) };
    let (place, path) = (prefix.to_owned(), PathBuf::from(path.trim_end_matches('/')));
    let look = tokio::task::spawn_blocking(move || {
        let looked = look(&place, &path);
        drop(permit);
        looked
    });
    look.await.expect("looking does not panic")
}

/// Checks the path, or the part of it that exists.
fn look(place: &str, path: &Path) -> Result<(), Error> {
    for part in path.ancestors() {
        match std::fs::metadata(part) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => {
                let (path, file) = (place.to_owned(), part.display().to_string());
                return Err(Error::NotAFolder { path, file });
            }
            // Missing, or below something that is no folder, which the next step up finds.
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
            Err(error) => return Err(Error::from_io(place, &error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::expand::tests::block_on;

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let root = tempfile::tempdir().expect("a folder");
        let here = root.path().to_str().expect("a plain name");
        std::fs::write(root.path().join("file"), "x").expect("written");
        std::fs::create_dir(root.path().join("folder")).expect("made");
        symlink("file", root.path().join("link")).expect("linked");
        symlink("loop", root.path().join("loop")).expect("linked");
        symlink("nowhere", root.path().join("later")).expect("linked");
        let said = |place: &str| {
            let place = format!("file://{here}/{place}");
            let error = block_on(check_folder(&place)).err()?;
            assert!(error.is_users_fault(), "{error}");
            Some(error.to_string().replace(here, "ROOT"))
        };
        for fine in ["folder", "folder/", "folder/a/b", "new/a", "", "later/a"] {
            assert_eq!(said(fine), None, "{fine}");
        }
        let other = "; name a folder that is there, or that can be made";
        for (place, file) in [
            ("file", "file"),
            ("file/a/b", "file"),
            ("link/a", "link"),
            ("folder/../file/", "folder/../file"),
        ] {
            let expected = format!("file://ROOT/{place}: ROOT/{file} is no folder{other}");
            assert_eq!(said(place), Some(expected));
        }
        let looped = said("loop/a").expect("it leads nowhere");
        assert!(
            looped.starts_with("file://ROOT/loop/a: too many levels of symbolic links"),
            "{looped}"
        );
        let long = said(&"x".repeat(300)).expect("no file system takes it");
        assert!(long.contains("file name too long"), "{long}");
        assert!(block_on(check_folder("s3://bucket/x")).is_ok());
    }
}
