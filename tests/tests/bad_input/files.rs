//! Input files change between the acceptance of a job and its run: how each job ends.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{LONG, Site, each, expect};

/// The name of a case, the change of the file between acceptance and run, the kind of split, and
/// the error of the subtask. `FILE` stands for the path of the file.
type Row = (&'static str, fn(&Path), &'static str, &'static str);

const ROWS: [Row; 8] = [
    ("it is deleted", delete, "files", "input: FILE: no such file"),
    ("it is deleted, split by lines", delete, "lines", "input: FILE: no such file"),
    (
        "its folder is deleted",
        |file| fs::remove_dir_all(folder(file)).expect("it was there"),
        "files",
        "input: FILE: no such file",
    ),
    ("a folder takes its place", replace_by_folder, "files", "input: FILE: …"),
    ("a folder takes its place, split by lines", replace_by_folder, "lines", "input: FILE: …"),
    ("a file takes its folder's place", replace_folder_by_file, "files", "input: FILE: …"),
    (
        "a file takes its folder's place, split by lines",
        replace_folder_by_file,
        "lines",
        "input: FILE: …",
    ),
    (
        "it shrinks",
        |file| fs::write(file, "a").expect("room for it"),
        "lines",
        "input: FILE: has changed since the job was admitted: it has 1 bytes of mtime …",
    ),
];

fn folder(file: &Path) -> &Path {
    file.parent().expect("it lies in a folder")
}

fn delete(file: &Path) {
    fs::remove_file(file).expect("it was there");
}

fn replace_by_folder(file: &Path) {
    delete(file);
    fs::create_dir(file).expect("its name is free");
}

fn replace_folder_by_file(file: &Path) {
    delete(file);
    fs::remove_dir(folder(file)).expect("it is empty");
    fs::write(folder(file), "no folder").expect("its name is free");
}

/// Submits all jobs to a queue without workers, changes their files, and adds a worker; returns the
/// number of rows.
pub(crate) fn table(site: &mut Site) -> usize {
    let mut jobs = Vec::new();
    for (number, row) in ROWS.into_iter().enumerate() {
        let file = site.folder.path().join(number.to_string()).join("file.txt");
        fs::create_dir(folder(&file)).expect("its name is free");
        fs::write(&file, "one two\n").expect("room for it");
        let path = file.to_str().expect("a plain name").to_owned();
        let mut split = json!({"by": row.2, "files": [&path]});
        if row.2 == "lines" {
            split["bytes"] = json!("1MiB");
        }
        let job = site.fleet.submit(&json!({
            "task": "wordcount", "queue": "later", "split": split,
            "retry": {"attempts": 2, "backoff": "10ms"},
        }));
        row.1(&file);
        jobs.push((row, path, job));
    }
    site.fleet.add_worker(&["--slots", "2", "--queues", "later"]);
    each("files", &jobs, |((name, _, _, error), path, job)| {
        let status = site.fleet.await_end(job, LONG);
        expect(name, "the job's state", status["state"].as_str().unwrap_or_default(), "failed")?;
        let errors = site.fleet.longshore(&["errors", job]).ok();
        let error = format!("subtask 0: {}", error.replace("FILE", path));
        let found = errors.rsplit_once(" (").map_or(errors.as_str(), |(found, _)| found);
        expect(name, "its error", found, &error)
    })
}
