//! Expands globs to the manifest of a job: the matching files or objects with their sizes.

use std::collections::BTreeMap;

use longshore_protocol::{InputFile, LeftOut, Manifest};

use crate::location::{Location, absolute};
use tokio::time::Instant;

use crate::roots::FollowedRoots;
use crate::{AllowedRoots, Error, local, object, walk};

/// The most files that the globs of one job may match. The manifest is stored in the ledger and
/// read by every worker.
pub const MAX_FILES: usize = 1_000_000;

/// The files found so far, by path.
#[derive(Default)]
pub(crate) struct Found {
    files: BTreeMap<String, (u64, Option<String>)>,
    left_out: LeftOut,
    /// The number of matches, including repeats.
    matches: u64,
}

impl Found {
    pub(crate) fn add(&mut self, file: InputFile) -> Result<(), Error> {
        self.matches += 1;
        self.files.insert(file.path, (file.size, file.version));
        if self.files.len() > MAX_FILES { Err(Error::TooManyFiles) } else { Ok(()) }
    }

    /// Counts a match that is no regular file.
    pub(crate) fn leave_out(&mut self, path: &std::path::Path) {
        self.left_out.add(&path.to_string_lossy());
    }

    fn into_manifest(self) -> Manifest {
        let files = self.files.into_iter();
        let files = files.map(|(path, (size, version))| InputFile { path, size, version });
        Manifest { files: files.collect(), left_out: self.left_out }
    }
}

/// Finds the regular files, links to them, or objects that the globs match, sorted by path and
/// without repeats, with their sizes.
///
/// `*`, `?` and `[…]` stop at slashes and don't match a leading dot; `**` is any number of
/// directories. Relative globs and `file://` URLs give absolute paths, `s3://` globs give URLs. A
/// glob that matches nothing is an error, and so is one that reaches beyond the roots. The
/// expansion ends within five minutes and some seconds even if the file system or the object store
/// hangs.
pub async fn expand(globs: &[String], roots: &AllowedRoots) -> Result<Manifest, Error> {
    let mut found = Found::default();
    let deadline = Instant::now() + walk::LONGEST;
    for glob in globs {
        let before = found.matches;
        roots.check_glob(glob)?;
        match Location::parse(glob)? {
            Location::Local(path) => {
                let path = absolute(path)?;
                found = expand_local(path, roots.clone(), found, deadline).await?;
            }
            Location::S3 { bucket, key } => {
                let store = object::bucket(bucket)?;
                object::expand(&store, bucket, key, &mut found, deadline).await?;
            }
        }
        if found.matches == before {
            return Err(Error::NoMatch { glob: glob.clone() });
        }
    }
    Ok(found.into_manifest())
}

async fn expand_local(
    glob: String,
    roots: AllowedRoots,
    mut found: Found,
    deadline: Instant,
) -> Result<Found, Error> {
    let name = glob.clone();
    walk::watched(&name, deadline, move |progress| {
        // The name of an existing file means that file, even if it would be a pattern.
        let glob = crate::named(&glob).unwrap_or(glob);
        let roots = FollowedRoots::new(&roots);
        local::expand(&glob, roots, &mut found, progress)?;
        Ok(found)
    })
    .await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};

    use super::*;

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Expands globs that may reach everywhere.
    pub(crate) async fn everywhere(globs: &[String]) -> Result<Manifest, Error> {
        expand(globs, &AllowedRoots::default()).await
    }

    fn later() -> Instant {
        Instant::now() + walk::LONGEST
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in ["b.txt", "a.txt", ".hidden.txt", "sub/c.txt", "sub/deep/d.txt", ".git/e.txt"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.file_name().unwrap().as_bytes()).unwrap();
        }
        symlink(root.path().join("a.txt"), root.path().join("link.txt")).unwrap();
        symlink(root.path().join("nowhere"), root.path().join("broken.txt")).unwrap();
        symlink(root.path(), root.path().join("sub/loop")).unwrap();
        root
    }

    #[track_caller]
    fn matches(globs: &[&str], expected: &[&str]) {
        let root = tree();
        let base = root.path().to_str().unwrap();
        let globs: Vec<String> = globs.iter().map(|glob| glob.replace("ROOT", base)).collect();
        let manifest = block_on(everywhere(&globs)).unwrap();
        let paths: Vec<String> =
            manifest.files.iter().map(|file| file.path.replace(base, "ROOT")).collect();
        assert_eq!(paths, expected);
        for file in manifest.files {
            assert_eq!(file.size, fs::metadata(file.path).unwrap().len());
        }
    }

    #[test]
    fn a_star_matches_files_and_links_to_files_but_nothing_hidden() {
        matches(&["ROOT/*.txt"], &["ROOT/a.txt", "ROOT/b.txt", "ROOT/link.txt"]);
        matches(&["ROOT/*"], &["ROOT/a.txt", "ROOT/b.txt", "ROOT/link.txt"]);
        matches(&["ROOT/.h*"], &["ROOT/.hidden.txt"]);
        matches(&["ROOT/[ab].tx?"], &["ROOT/a.txt", "ROOT/b.txt"]);
        matches(&["file://ROOT/./b.txt"], &["ROOT/b.txt"]);
    }

    #[test]
    fn matches_that_are_no_regular_files_are_skipped_and_counted() {
        let root = tree();
        fs::create_dir(root.path().join("folder.txt")).unwrap();
        fs::create_dir(root.path().join("sub/deep/e.txt")).unwrap();
        let here = root.path().to_str().unwrap();
        let left_out = |globs: &[&str]| {
            let globs: Vec<String> = globs.iter().map(|glob| format!("{here}/{glob}")).collect();
            let mut left_out = block_on(everywhere(&globs)).unwrap().left_out;
            left_out.sample.sort();
            left_out.sample.iter_mut().for_each(|path| *path = path.replace(here, "ROOT"));
            assert_eq!(left_out.count, left_out.sample.len() as u64);
            left_out.sample
        };
        assert_eq!(left_out(&["*.txt"]), ["ROOT/broken.txt", "ROOT/folder.txt"]);
        assert_eq!(left_out(&["s*/*"]), ["ROOT/sub/deep", "ROOT/sub/loop"], "in folders, too");
        assert_eq!(left_out(&["s*/*/*.txt"]).len(), 3, "below a link as well");
        assert_eq!(left_out(&["sub/**/*.txt"]), ["ROOT/sub/deep/e.txt"]);
        assert_eq!(left_out(&["sub/**"]), [""; 0], "files at any depth are meant");
        assert_eq!(left_out(&["a.txt"]), [""; 0]);
        assert_eq!(left_out(&["*/c.txt"]), [""; 0], "what is not there is not matched");
    }

    #[test]
    fn two_stars_walk_down_but_not_through_links() {
        matches(
            &["ROOT/**/*.txt"],
            &["ROOT/a.txt", "ROOT/b.txt", "ROOT/link.txt", "ROOT/sub/c.txt", "ROOT/sub/deep/d.txt"],
        );
        matches(&["ROOT/sub/**"], &["ROOT/sub/c.txt", "ROOT/sub/deep/d.txt"]);
        matches(&["ROOT/**/d.txt"], &["ROOT/sub/deep/d.txt"]);
        matches(&["ROOT/sub/loop/b.*"], &["ROOT/sub/loop/b.txt"]);
    }

    /// A naive walk would visit the directories once for each way to assign them to the wildcards.
    #[test]
    fn the_cost_of_many_wildcards_is_linear_in_the_size_of_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d/".repeat(24));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x.txt"), "x").unwrap();
        for part in ["**/", "**/*/"] {
            let glob = format!("{}/{}*.txt", root.path().display(), part.repeat(10));
            let manifest = block_on(everywhere(&[glob])).unwrap();
            assert_eq!(manifest.files.len(), 1);
        }
    }

    #[test]
    fn the_cost_of_many_wildcards_is_linear_in_the_length_of_a_key() {
        let key = format!("{}/{}", "a".repeat(100), "b".repeat(100));
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut found = Found::default();
        block_on(async {
            store.put(&Path::from(key.as_str()), "x".into()).await.unwrap();
            for glob in [format!("{}c/*", "*a".repeat(20)), format!("{}c", "**/*/".repeat(20))] {
                object::expand(&store, "bkt", &glob, &mut found, later()).await.unwrap();
            }
        });
        assert!(found.into_manifest().files.is_empty());
    }

    #[test]
    fn files_that_several_globs_match_are_listed_once_in_order() {
        matches(
            &["ROOT/b*", "ROOT/*.txt", "ROOT/b.txt"],
            &["ROOT/a.txt", "ROOT/b.txt", "ROOT/link.txt"],
        );
    }

    #[track_caller]
    fn refused(glob: &str, message: &str) {
        let root = tree();
        let base = root.path().to_str().unwrap();
        let error = block_on(everywhere(&[glob.replace("ROOT", base)])).unwrap_err();
        assert_eq!(error.to_string().replace(base, "ROOT"), message);
        assert!(error.is_users_fault());
    }

    #[test]
    fn a_glob_without_a_match_is_named() {
        refused("ROOT/*.csv", "no file matches `ROOT/*.csv`");
        refused("ROOT/broken.txt", "no file matches `ROOT/broken.txt`");
        refused("ROOT/sub", "`ROOT/sub` is a directory; write `ROOT/sub/*` for the files in it");
        refused("/dev/null", "`/dev/null` is no regular file");
        refused("ROOT/nowhere/*", "no file matches `ROOT/nowhere/*`");
        refused("file://ROOT/x", "no file matches `file://ROOT/x`");
        refused("ROOT/a.txt/b", "no file matches `ROOT/a.txt/b`");
        refused(
            "ROOT/a**",
            "`ROOT/a**` is no glob: recursive wildcards must form a single path component",
        );
        refused("ROOT/[a", "`ROOT/[a` is no glob: invalid range pattern");
        refused("ROOT/*/../x", "`ROOT/*/../x` is no glob: `..` behind a wildcard");
    }

    #[test]
    fn a_path_that_cannot_be_followed_is_refused_with_what_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().display();
        symlink(root.path().join("self.txt"), root.path().join("self.txt")).unwrap();
        let allowed = "use paths that lead to files, or leave this one out";
        let long = "x".repeat(300);
        for (glob, said) in [
            (
                format!("{base}/*.txt"),
                format!("{base}/self.txt: too many levels of symbolic links"),
            ),
            (
                format!("{base}/self.txt/*"),
                format!("{base}/self.txt: too many levels of symbolic links"),
            ),
            (format!("{base}/{long}"), format!("{base}/{long}: file name too long")),
            (format!("{base}/{long}/*"), format!("{base}/{long}: file name too long")),
        ] {
            let error = block_on(everywhere(&[glob])).unwrap_err();
            assert_eq!(error.to_string(), format!("{said}; {allowed}"));
            assert!(error.is_users_fault());
        }
    }

    #[test]
    fn a_name_that_is_not_utf8_is_not_skipped_in_silence() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt")), "x").unwrap();
        let glob = format!("{}/*.txt", root.path().display());
        let error = block_on(everywhere(&[glob])).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{}/caf\u{fffd}.txt: the name is not UTF-8", root.path().display())
        );
    }

    #[test]
    fn the_name_of_a_file_means_that_file_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for name in ["report[1].txt", "report1.txt", "what?.txt", "a*b", "aXb"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let path = |name: &str| format!("{}/{name}", root.path().display());
        for name in ["report[1].txt", "what?.txt", "a*b"] {
            let manifest = block_on(everywhere(&[path(name)])).unwrap();
            let paths: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths, [path(name)]);
        }
        fs::remove_file(path("a*b")).unwrap();
        let manifest = block_on(everywhere(&[path("a*b")])).unwrap();
        assert_eq!(manifest.files[0].path, path("aXb"), "without such a file it is a pattern");
    }

    #[test]
    fn special_characters_of_a_directory_are_taken_literally() {
        let root = tempfile::tempdir().unwrap();
        let odd = root.path().join("odd[1]*");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("x.txt"), "x").unwrap();
        let glob = format!("{}/*.txt", glob::Pattern::escape(odd.to_str().unwrap()));
        let manifest = block_on(everywhere(&[glob])).unwrap();
        assert_eq!(manifest.files[0].path, format!("{}/x.txt", odd.display()));
    }

    #[track_caller]
    fn objects(glob: &str, expected: &[&str]) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut found = Found::default();
        block_on(async {
            for key in ["in/a.txt", "in/b.csv", "in/.h.txt", "in/sub/c.txt", "inner/d.txt"] {
                store.put(&Path::from(key), key.to_owned().into()).await.unwrap();
            }
            object::expand(&store, "bkt", glob, &mut found, later()).await.unwrap();
        });
        let files = found.into_manifest().files;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, expected);
        assert!(files.iter().all(|file| file.size == file.path.len() as u64 - 9));
    }

    #[test]
    fn objects_are_matched_like_files() {
        objects("in/*", &["s3://bkt/in/a.txt", "s3://bkt/in/b.csv"]);
        objects("in/a.txt", &["s3://bkt/in/a.txt"]);
        objects(
            "in*/**/*.txt",
            &["s3://bkt/in/a.txt", "s3://bkt/in/sub/c.txt", "s3://bkt/inner/d.txt"],
        );
        objects("in/nothing", &[]);
        objects("out/*", &[]);
    }
}
