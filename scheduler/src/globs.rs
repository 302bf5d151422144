//! Expands the globs of documents, so that slow file systems don't delay other documents.
//!
//! It also refuses jobs whose results can never be written, or may not be written where they want
//! them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use longshore_protocol::document::{Results, Split};
use longshore_protocol::{Invalid, JobDocument, Manifest};
use longshore_storage::{AllowedRoots, Error};
use tokio::sync::Semaphore;

/// An expansion that takes longer counts as a long one, of which only some may be in work.
const QUICK: Duration = Duration::from_millis(250);

/// The most long expansions in work, besides those of waiting documents.
pub(crate) const LONG: u16 = 16;

/// Refuses a job whose results may not be written where it wants them, or never can be, by the
/// files that this scheduler sees. What is not surely wrong, or not known soon, is left to the
/// workers, but for whether it is allowed.
pub(crate) async fn check_results(
    document: &JobDocument,
    roots: &AllowedRoots,
) -> Result<(), NoManifest> {
    let Results::Url(location) = &document.results else { return Ok(()) };
    match tokio::time::timeout(QUICK, roots.check_prefix(location)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(no_manifest("results", &error)),
        Err(_) => return Err(NoManifest::NotNow(format!("results: {location}: no answer yet"))),
    }
    match tokio::time::timeout(QUICK, longshore_storage::check_folder(location)).await {
        Ok(Err(error @ (Error::NotAFolder { .. } | Error::Unusable { .. }))) => {
            Err(no_manifest("results", &error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The function that expands globs: `longshore_storage::expand`, but for tests.
pub type Expand =
    Arc<dyn Fn(Vec<String>) -> BoxFuture<'static, Result<Manifest, Error>> + Send + Sync>;

/// Why there is no manifest.
#[derive(Debug, PartialEq)]
pub(crate) enum NoManifest {
    /// The document is wrong; the reason, for its author.
    Refused(String),
    /// The files can't be read now; the reason.
    NotNow(String),
}

/// Expands the globs of documents.
pub(crate) struct Globs {
    expand: Expand,
    allow_relative: bool,
    long: Semaphore,
}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Globs").field("long", &self.long).finish_non_exhaustive()
    }
}

/// Expands globs on the files of this machine, below these roots.
pub(crate) fn real(roots: AllowedRoots) -> Expand {
    Arc::new(move |globs| {
        let roots = roots.clone();
        async move { longshore_storage::expand(&globs, &roots).await }.boxed()
    })
}

fn no_manifest(place: &str, error: &Error) -> NoManifest {
    let reason = format!("{place}: {error}");
    if error.is_users_fault() { NoManifest::Refused(reason) } else { NoManifest::NotNow(reason) }
}

impl Globs {
    pub(crate) fn new(expand: Expand, allow_relative: bool) -> Self {
        Self { expand, allow_relative, long: Semaphore::new(usize::from(LONG)) }
    }

    /// Expands the globs of a document. One that has waited already gets all the time that an
    /// expansion may take; a new one has to wait if it takes long and too many others do.
    pub(crate) async fn manifest(
        &self,
        document: &JobDocument,
        has_waited: bool,
    ) -> Result<Manifest, NoManifest> {
        let (Split::Lines { files: globs, .. } | Split::Files { files: globs }) = &document.split
        else {
            return Ok(Manifest::default());
        };
        self.check(globs)?;
        let mut expansion = (self.expand)(globs.clone());
        let expanded = if has_waited {
            expansion.await
        } else {
            match tokio::time::timeout(QUICK, &mut expansion).await {
                Ok(expanded) => expanded,
                Err(_) => match self.long.try_acquire() {
                    Ok(_permit) => expansion.await,
                    Err(_) => return Err(NoManifest::NotNow(self.too_many_long())),
                },
            }
        };
        expanded.map_err(|error| no_manifest("split.files", &error))
    }

    fn check(&self, globs: &[String]) -> Result<(), NoManifest> {
        let relative = |glob: &String| !longshore_storage::is_absolute(glob);
        match globs.iter().position(relative).filter(|_| !self.allow_relative) {
            None => Ok(()),
            Some(at) => Err(NoManifest::Refused(
                Invalid {
                    place: format!("split.files[{at}]"),
                    found: format!("`{}` is relative", globs[at]),
                    allowed:
                        "write an absolute path or a URL; `longshore submit` makes relative paths \
                         absolute"
                            .into(),
                }
                .to_string(),
            )),
        }
    }

    fn too_many_long(&self) -> String {
        format!("split.files: the globs take long, and so do those of {LONG} other documents")
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn document() -> JobDocument {
        JobDocument::new("t", Split::files(["/net/*"]))
    }

    #[tokio::test]
    async fn results_that_can_never_be_written_are_refused_and_others_left_to_workers() {
        let root = tempfile::tempdir().expect("a folder");
        let here = root.path().to_str().expect("a plain name");
        std::fs::write(root.path().join("file"), "x").expect("written");
        let everywhere = AllowedRoots::default();
        let judge = async |results: Results| {
            check_results(&JobDocument { results, ..document() }, &everywhere).await
        };
        let of = |place: &str| Results::Url(format!("file://{here}/{place}"));
        let refusal = judge(of("file/x")).await.expect_err("a file is no folder");
        let NoManifest::Refused(refusal) = refusal else { panic!("{refusal:?}") };
        assert!(
            refusal
                .starts_with(&format!("results: file://{here}/file/x: {here}/file is no folder; "))
        );
        for results in [of("new/x"), Results::Keep, Results::Url("s3://bucket/x".into())] {
            assert_eq!(judge(results).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn results_outside_of_the_allowed_roots_are_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let here = root.path().to_str().expect("a plain name");
        let roots = AllowedRoots::new(&[here, "s3://mine"]).expect("good roots");
        let judge = async |place: &str| {
            let results = Results::Url(place.to_owned());
            check_results(&JobDocument { results, ..document() }, &roots).await
        };
        for place in ["file:///etc/new", "s3://other/x"] {
            let Err(NoManifest::Refused(reason)) = judge(place).await else { panic!("{place}") };
            let said = format!("results: `{place}` is outside of what jobs may touch; allowed are");
            assert!(reason.starts_with(&said), "{reason}");
        }
        for place in [format!("file://{here}/new/x"), "s3://mine".to_owned()] {
            assert_eq!(judge(&place).await, Ok(()), "{place}");
        }
    }

    fn hanging() -> Globs {
        Globs::new(Arc::new(|_| std::future::pending().boxed()), false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_that_takes_long_has_to_wait_once_too_many_do() {
        let globs = Arc::new(hanging());
        let begun = Instant::now();
        for _ in 0..LONG {
            let globs = globs.clone();
            tokio::spawn(async move { globs.manifest(&document(), false).await });
        }
        // Those begin first.
        tokio::time::sleep(QUICK).await;
        let refusal = globs.manifest(&document(), false).await;
        assert_eq!(refusal, Err(NoManifest::NotNow(globs.too_many_long())));
        assert!(begun.elapsed() <= QUICK * 3, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_document_is_not_refused_for_a_failing_file_system() {
        let fails = |error: fn() -> Error| {
            Globs::new(Arc::new(move |_| std::future::ready(Err(error())).boxed()), false)
        };
        let away = fails(|| Error::Io { path: "/net/x".into(), reason: "gone".into() });
        let refusal = away.manifest(&document(), false).await;
        assert_eq!(refusal, Err(NoManifest::NotNow("split.files: /net/x: gone".into())));
        let denied = fails(|| Error::Denied { path: "/net/x".into() });
        let refusal = denied.manifest(&document(), false).await;
        let refused = NoManifest::Refused("split.files: /net/x: permission denied".into());
        assert_eq!(refusal, Err(refused));
    }
}
