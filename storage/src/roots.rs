//! Decides whether a file or object lies below the roots that jobs may touch.
//!
//! A path is judged by where it leads: links are followed in it and in the roots. A path that does
//! not exist yet is judged by its nearest existing parent.
//!
//! Deliberately absent: protection against users who can change links between the check and the
//! open, against hard links, and against mounts. `docs/security.md` says what follows from that.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use longshore_protocol::Invalid;

use crate::Error;
use crate::location::Location;

/// The most roots that an error names.
const NAMED: usize = 5;

/// The folders and object prefixes below which the files and results of jobs may lie. The default
/// allows every place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedRoots(Option<Arc<[Root]>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    Folder(PathBuf),
    /// The prefix has no slash at its ends; it is empty for a whole bucket.
    Objects {
        bucket: String,
        prefix: String,
    },
}

impl AllowedRoots {
    /// Reads the setting `allow_roots`: absolute folders and URLs such as `s3://bucket/prefix/`. An
    /// empty list allows nothing.
    ///
    /// # Errors
    /// For a root that is relative, has `..` in it or is a URL of another kind.
    pub fn new<S: AsRef<str>>(roots: &[S]) -> Result<Self, Invalid> {
        let numbered = roots.iter().enumerate();
        let roots = numbered.map(|(at, root)| Root::parse(at, root.as_ref()));
        Ok(Self(Some(roots.collect::<Result<_, _>>()?)))
    }

    /// Whether there are roots; otherwise every place is allowed.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Fails unless the file or object, or the place where it will be, is below a root.
    ///
    /// # Errors
    /// [`Error::OutsideRoots`], those of a location that is no path and no known URL, and those of
    /// the file system.
    pub async fn check(&self, place: &str) -> Result<(), Error> {
        self.check_as(place, place).await
    }

    /// Fails unless what is written under this prefix will be below a root.
    ///
    /// # Errors
    /// Those of [`Self::check`].
    pub async fn check_prefix(&self, prefix: &str) -> Result<(), Error> {
        if prefix.starts_with("s3://") {
            // A bucket alone has no key.
            return self.check_as(prefix, &format!("{}/_", prefix.trim_end_matches('/'))).await;
        }
        self.check_as(prefix, prefix).await
    }

    async fn check_as(&self, name: &str, place: &str) -> Result<(), Error> {
        if !self.is_set() {
            return Ok(());
        }
        match Location::parse(place)? {
            Location::S3 { bucket, key } => self.check_object(name, bucket, key),
            Location::Local(path) => {
                let (roots, name) = (self.clone(), name.to_owned());
                let path = PathBuf::from(path);
                let check = tokio::task::spawn_blocking(move || {
                    let path = std::path::absolute(&path);
                    let path = path.map_err(|error| Error::from_io(&name, &error))?;
                    FollowedRoots::new(&roots).check(&path, &name)
                });
                check.await.expect("checking does not panic")
            }
        }
    }

    /// Fails unless all that a glob can match lies below a root, by its text. Where a path of the
    /// file system leads is checked during the walk.
    pub(crate) fn check_glob(&self, glob: &str) -> Result<(), Error> {
        match Location::parse(glob)? {
            Location::S3 { bucket, key } => {
                let literal = match key.find(['*', '?', '[']) {
                    Some(special) => key[..special].rfind('/').map_or("", |slash| &key[..slash]),
                    None => key,
                };
                self.check_object(glob, bucket, literal)
            }
            Location::Local(_) => Ok(()),
        }
    }

    fn check_object(&self, place: &str, bucket: &str, key: &str) -> Result<(), Error> {
        let Some(roots) = &self.0 else { return Ok(()) };
        let is_plain = key.split('/').all(|part| !matches!(part, "." | ".."));
        let is_inside = |root: &Root| match root {
            Root::Objects { bucket: allowed, prefix } => {
                let rest = key.strip_prefix(prefix.as_str());
                let ends_there = |rest: &str| rest.is_empty() || rest.starts_with('/');
                bucket == allowed && (prefix.is_empty() || rest.is_some_and(ends_there))
            }
            Root::Folder(_) => false,
        };
        if is_plain && roots.iter().any(is_inside) {
            Ok(())
        } else {
            Err(self.outside(place, None))
        }
    }

    fn outside(&self, place: &str, leads_to: Option<PathBuf>) -> Error {
        Error::OutsideRoots {
            path: place.to_owned(),
            leads_to: leads_to.map(|path| path.to_string_lossy().into_owned()),
            allowed: self.to_string(),
        }
    }
}

/// What is allowed, for errors.
impl fmt::Display for AllowedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(roots) = &self.0 else { return f.write_str("any place") };
        if roots.is_empty() {
            return f.write_str("no place");
        }
        let named: Vec<String> = roots.iter().take(NAMED).map(ToString::to_string).collect();
        write!(f, "places below {}", named.join(", "))?;
        match roots.len().checked_sub(NAMED) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

impl Root {
    fn parse(at: usize, text: &str) -> Result<Self, Invalid> {
        let bad = |found: String| Invalid {
            place: format!("allow_roots[{at}]"),
            found,
            allowed: "use an absolute folder without `..`, such as /data, or a URL such as \
                      s3://bucket/prefix/"
                .into(),
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = key.trim_matches('/');
            let is_plain = prefix.split('/').all(|part| !matches!(part, "." | ".."))
                && !prefix.contains("//")
                && !prefix.contains(['*', '?', '[']);
            if bucket.is_empty() || !is_plain {
                return Err(bad(format!("`{text}` is no bucket and prefix")));
            }
            return Ok(Self::Objects { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        let path = match Location::parse(text) {
            Ok(Location::Local(path)) => Path::new(path),
            _ => return Err(bad(format!("`{text}` is no folder"))),
        };
        if !path.is_absolute() {
            return Err(bad(format!("`{text}` is relative")));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(bad(format!("`{text}` with `..`")));
        }
        Ok(Self::Folder(path.components().collect()))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Objects { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}/"),
            Self::Objects { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}/"),
        }
    }
}

/// The roots with their links followed, for one check or one walk over a file system. Blocks.
pub(crate) struct FollowedRoots {
    allowed: AllowedRoots,
    folders: Vec<PathBuf>,
    /// Where the folders of a walk lead.
    followed: HashMap<PathBuf, PathBuf>,
}

impl FollowedRoots {
    pub(crate) fn new(allowed: &AllowedRoots) -> Self {
        let roots = allowed.0.iter().flat_map(|roots| roots.iter());
        let folders = roots.filter_map(|root| match root {
            Root::Folder(path) => follow(path).ok().flatten(),
            Root::Objects { .. } => None,
        });
        Self { folders: folders.collect(), allowed: allowed.clone(), followed: HashMap::new() }
    }

    /// Fails unless an absolute path, or the place where it will be, is below a root; the error
    /// calls it `name`.
    pub(crate) fn check(&self, path: &Path, name: &str) -> Result<(), Error> {
        if !self.allowed.is_set() {
            return Ok(());
        }
        let real = self.follow(path, name)?;
        self.judge(real, path, name)
    }

    /// The same for a folder that a walk is about to list, or in which it looks for a name. Cheap
    /// for one that was checked before.
    pub(crate) fn check_folder(&mut self, folder: &Path) -> Result<(), Error> {
        if !self.allowed.is_set() || self.followed.contains_key(folder) {
            return Ok(());
        }
        let name = folder.to_string_lossy();
        let real = self.follow(folder, &name)?;
        self.judge(real.clone(), folder, &name)?;
        self.followed.extend(real.map(|real| (folder.to_owned(), real)));
        Ok(())
    }

    /// The same for a file that a walk has found in a folder that it has checked.
    pub(crate) fn check_file(&self, path: &Path) -> Result<(), Error> {
        let is_link =
            || path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_symlink());
        if self.allowed.is_set() && is_link() {
            return self.check(path, &path.to_string_lossy());
        }
        Ok(())
    }

    /// Where a path leads. One that can't be followed counts as outside unless its text is below a
    /// root: the system's error would tell what exists elsewhere.
    fn follow(&self, path: &Path, name: &str) -> Result<Option<PathBuf>, Error> {
        follow(path).map_err(|error| {
            if self.folders.iter().any(|folder| path.starts_with(folder)) {
                Error::from_io(name, &error)
            } else {
                self.allowed.outside(name, None)
            }
        })
    }

    fn judge(&self, real: Option<PathBuf>, path: &Path, name: &str) -> Result<(), Error> {
        match real {
            Some(real) if self.folders.iter().any(|folder| real.starts_with(folder)) => Ok(()),
            real => Err(self.allowed.outside(name, real.filter(|real| real != path))),
        }
    }
}

/// Where an absolute path leads; for one that does not exist, where its nearest existing parent
/// leads, and the rest. `None` if that can't be known: the rest has `..` in it, or begins with a
/// link that leads nowhere.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = path;
    let mut rest = Vec::new();
    loop {
        match at.canonicalize() {
            Ok(mut real) => {
                real.extend(rest.iter().rev());
                return Ok(Some(real));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(error),
        }
        let is_link = at.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let (Some(name), Some(parent), false) = (at.file_name(), at.parent(), is_link) else {
            return Ok(None);
        };
        rest.push(name);
        at = parent;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::expand;
    use crate::expand::tests::block_on;

    /// A folder with `in` (a root), `out`, links from one to the other, and `café` in Unicode's
    /// composed form.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        let here = root.path();
        for folder in ["in/sub", "inner", "out/deep", "in/caf\u{e9}"] {
            fs::create_dir_all(here.join(folder)).expect("made");
        }
        for file in ["in/a.txt", "in/sub/b.txt", "inner/c.txt", "out/d.txt", "out/deep/e.txt"] {
            fs::write(here.join(file), "x").expect("written");
        }
        symlink("../out", here.join("in/away")).expect("linked");
        symlink("../out/d.txt", here.join("in/d.txt")).expect("linked");
        symlink("sub", here.join("in/near")).expect("linked");
        symlink("../out/later", here.join("in/broken")).expect("linked");
        symlink("loop", here.join("in/loop")).expect("linked");
        symlink("in", here.join("link")).expect("linked");
        root
    }

    /// Checks a place below ROOT against roots below ROOT; gives the error.
    fn judged(roots: &[&str], place: &str) -> Option<Error> {
        let tree = tree();
        let here = tree.path().canonicalize().expect("it exists");
        let full = |text: &&str| text.replace("ROOT", here.to_str().expect("a plain name"));
        let roots: Vec<String> = roots.iter().map(full).collect();
        let roots = AllowedRoots::new(&roots).expect("good roots");
        block_on(roots.check(&full(&place))).err()
    }

    #[track_caller]
    fn allowed(roots: &[&str], places: &[&str]) {
        for place in places {
            let error = judged(roots, place);
            assert!(error.is_none(), "{place}: {error:?}");
        }
    }

    #[track_caller]
    fn refused(roots: &[&str], places: &[&str]) {
        for place in places {
            let error = judged(roots, place);
            assert!(matches!(error, Some(Error::OutsideRoots { .. })), "{place}: {error:?}");
        }
    }

    #[test]
    fn places_below_a_root_are_allowed_whether_they_exist_or_not() {
        let below =
            ["ROOT/in", "ROOT/in/", "ROOT/in/a.txt", "ROOT/in/new/deep/x", "ROOT/in/./a.txt"];
        for root in ["ROOT/in", "ROOT/in/", "ROOT//in", "file://ROOT/in", "ROOT/link"] {
            allowed(&[root], &below);
            allowed(
                &[root],
                &["file://ROOT/in/sub/b.txt", "ROOT/link/a.txt", "ROOT/in/near/b.txt"],
            );
        }
        allowed(&["ROOT/out", "ROOT/in"], &["ROOT/in/away/d.txt", "ROOT/in/d.txt"]);
        allowed(&["ROOT/later"], &["ROOT/later/x"]);
        allowed(&["/"], &["ROOT/in/a.txt", "ROOT/in/away/d.txt", "/no/such/place"]);
        allowed(&["ROOT/in"], &["ROOT/in/sub/../a.txt", "ROOT/out/../in/a.txt"]);
        allowed(&["ROOT/in/caf\u{e9}"], &["ROOT/in/caf\u{e9}/x"]);
    }

    #[test]
    fn places_that_lead_elsewhere_are_refused() {
        refused(
            &["ROOT/in"],
            &[
                "ROOT",
                "ROOT/out/d.txt",
                "ROOT/inner/c.txt",
                "ROOT/in/../out/d.txt",
                "ROOT/in/../out/new",
                "ROOT/in/sub/../../out/d.txt",
                "ROOT/in/new/../../out/d.txt",
                "ROOT/in/new/..",
                "ROOT/in/away/d.txt",
                "ROOT/in/away/new",
                "ROOT/in/d.txt",
                "ROOT/in/broken",
                "ROOT/in/broken/x",
                "file://ROOT/in/../out/d.txt",
                "/etc/passwd",
                "s3://bucket/in/a",
            ],
        );
        refused(&[], &["ROOT/in/a.txt", "/"]);
        refused(&["ROOT/in/cafe\u{301}"], &["ROOT/in/caf\u{e9}/x"]);
        let error = judged(&["ROOT/in"], "ROOT/in/loop").expect("it leads nowhere");
        assert!(error.to_string().contains("too many levels of symbolic links"), "{error}");
        refused(&["ROOT/out"], &["ROOT/in/loop", "ROOT/in/loop/x"]);
    }

    #[test]
    fn objects_are_compared_by_whole_names() {
        let root = ["s3://bucket/in/"];
        allowed(&root, &["s3://bucket/in/a", "s3://bucket/in/b/c", "s3://bucket/in"]);
        refused(
            &root,
            &["s3://bucket/inner/a", "s3://other/in/a", "s3://bucket/in/../x", "s3://bucket//in/a"],
        );
        allowed(&["s3://bucket"], &["s3://bucket/a"]);
        let roots = AllowedRoots::new(&["s3://bucket/in", "s3://mine"]).expect("good roots");
        for prefix in ["s3://mine", "s3://mine/", "s3://bucket/in", "s3://bucket/in/x/"] {
            assert!(block_on(roots.check_prefix(prefix)).is_ok(), "{prefix}");
        }
        for prefix in ["s3://bucket", "s3://bucket/", "s3://bucket/inner", "file:///"] {
            assert!(block_on(roots.check_prefix(prefix)).is_err(), "{prefix}");
        }
        refused(&["s3://bucket", "ROOT/out"], &["s3://bucket2/a", "ROOT/in/a.txt"]);
    }

    #[test]
    fn a_refusal_says_where_the_place_leads_and_what_is_allowed() {
        let roots = AllowedRoots::new(&["/data", "s3://bucket/in"]).expect("good roots");
        let error = block_on(roots.check("/etc/../etc/passwd")).expect_err("outside");
        assert_eq!(
            error.to_string(),
            "`/etc/../etc/passwd` leads to /etc/passwd, outside of what jobs may touch; allowed \
             are places below /data, s3://bucket/in/ (setting allow_roots)"
        );
        let error = block_on(roots.check("s3://bucket/x")).expect_err("outside");
        assert_eq!(
            error.to_string(),
            "`s3://bucket/x` is outside of what jobs may touch; allowed are places below /data, \
             s3://bucket/in/ (setting allow_roots)"
        );
        let many: Vec<String> = (0..7).map(|number| format!("/r{number}")).collect();
        let many = AllowedRoots::new(&many).expect("good roots");
        assert_eq!(many.to_string(), "places below /r0, /r1, /r2, /r3, /r4 and 2 more");
        assert_eq!(AllowedRoots::new::<&str>(&[]).expect("none").to_string(), "no place");
    }

    #[test]
    fn bad_roots_are_named_with_their_place() {
        let allowed = "use an absolute folder without `..`, such as /data, or a URL such as \
                       s3://bucket/prefix/";
        for (root, found) in [
            ("data", "`data` is relative"),
            ("", "`` is relative"),
            ("/data/../etc", "`/data/../etc` with `..`"),
            ("gs://bucket/x", "`gs://bucket/x` is no folder"),
            ("s3:///x", "`s3:///x` is no bucket and prefix"),
            ("s3://bucket/a/../b", "`s3://bucket/a/../b` is no bucket and prefix"),
            ("s3://bucket/*", "`s3://bucket/*` is no bucket and prefix"),
        ] {
            let error = AllowedRoots::new(&["/fine", root]).expect_err("it is wrong");
            assert_eq!(error.to_string(), format!("allow_roots[1]: {found}; {allowed}"));
        }
    }

    /// What a glob below ROOT matches with the root `ROOT/in`, or the error.
    fn expanded(glob: &str) -> Result<Vec<String>, Error> {
        let tree = tree();
        let here = tree.path().canonicalize().expect("it exists");
        let here = here.to_str().expect("a plain name");
        let roots = AllowedRoots::new(&[format!("{here}/in")]).expect("good roots");
        let manifest = block_on(expand(&[glob.replace("ROOT", here)], &roots))?;
        Ok(manifest.files.into_iter().map(|file| file.path.replace(here, "ROOT")).collect())
    }

    #[test]
    fn a_glob_may_match_files_below_a_root_only() {
        assert_eq!(expanded("ROOT/in/a*").expect("inside"), ["ROOT/in/a.txt"]);
        assert_eq!(expanded("ROOT/link/a*").expect("inside"), ["ROOT/link/a.txt"]);
        assert_eq!(expanded("ROOT/in/n*/*").expect("inside"), ["ROOT/in/near/b.txt"]);
        assert_eq!(expanded("ROOT/in/b*").err().map(|e| e.is_users_fault()), Some(true));
        for glob in [
            "ROOT/out/*",
            "ROOT/out/nothing",
            "ROOT/*/a.txt",
            "ROOT/*",
            "ROOT/in/*.txt",
            "ROOT/in/d.txt",
            "ROOT/in/away/*",
            "ROOT/in/away/nothing",
            "ROOT/in/aw*/*.txt",
            "ROOT/in/aw*/deep/nothing",
            "ROOT/in/../out/*",
            "/etc/pass*",
            "s3://bucket/*",
        ] {
            let error = expanded(glob).expect_err(glob);
            assert!(matches!(error, Error::OutsideRoots { .. }), "{glob}: {error}");
        }
    }

    #[test]
    fn a_glob_of_objects_is_judged_by_what_it_can_match() {
        let roots = AllowedRoots::new(&["s3://bucket/in"]).expect("good roots");
        for glob in ["s3://bucket/in/*", "s3://bucket/in/a/*.txt", "s3://bucket/in/**/x"] {
            assert!(roots.check_glob(glob).is_ok(), "{glob}");
        }
        for glob in ["s3://bucket/*", "s3://bucket/in*", "s3://bucket/i?/x", "s3://other/in/*"] {
            assert!(roots.check_glob(glob).is_err(), "{glob}");
        }
    }
}
