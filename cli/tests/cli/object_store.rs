//! Jobs whose inputs and results are on `s3://`, with the real client and the `AWS_*` environment.
//!
//! Inputs are listed and read by ranges, results are written and read back. The store is a stand-in
//! that implements the four necessary requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::given::Given;

const BUCKET: &str = "/harbour";

/// Objects by key, and the received requests as `METHOD key`.
#[derive(Clone, Default)]
struct Store {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

struct Request {
    method: String,
    key: String,
    query: String,
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

impl Store {
    /// Serves on a free port until the process ends; returns the endpoint.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let store = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let store = store.clone();
                std::thread::spawn(move || store.answer(stream));
            }
        });
        endpoint
    }

    fn put(&self, key: &str, text: &str) {
        self.objects.lock().expect("whole").insert(key.to_owned(), text.as_bytes().to_vec());
    }

    fn answer(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&stream) else {
            return;
        };
        let asked = format!("{} {}", request.method, request.key);
        self.requests.lock().expect("whole").push(asked);
        let (status, headers, body) = self.respond(request);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\nConnection: close\r\n\
             Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{headers}\r\n",
            body.len()
        );
        let _ = stream.write_all(&[head.as_bytes(), &body].concat());
    }

    fn respond(&self, request: Request) -> (&'static str, String, Vec<u8>) {
        let mut objects = self.objects.lock().expect("whole");
        if request.method == "PUT" {
            objects.insert(request.key, request.body);
            return ("200 OK", String::new(), Vec::new());
        }
        if request.query.contains("list-type=2") {
            return ("200 OK", String::new(), list(&objects, &request.query).into_bytes());
        }
        let Some(object) = objects.get(&request.key) else {
            return (
                "404 Not Found",
                String::new(),
                b"<Error><Code>NoSuchKey</Code></Error>".into(),
            );
        };
        match request.range {
            None => ("200 OK", String::new(), object.clone()),
            Some((from, _)) if from >= object.len() => {
                ("416 Range Not Satisfiable", String::new(), Vec::new())
            }
            Some((from, last)) => {
                let end = (last + 1).min(object.len());
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", end - 1, object.len());
                ("206 Partial Content", range, object[from..end].to_vec())
            }
        }
    }
}

fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
    let prefix = prefix.unwrap_or_default().replace("%2F", "/");
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"e\"</ETag>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
                object.len()
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut words = lines.first()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.strip_prefix(BUCKET)?.trim_start_matches('/').to_owned();
    let header = |name: &str| {
        lines
            .iter()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    let range = header("range").and_then(|range| {
        let (from, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse().ok()?, last.parse().ok()?))
    });
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, key, query: query.to_owned(), range, body })
}

fn given(store: &Store) -> Given {
    Given::nothing()
        .variable("AWS_ENDPOINT", &store.serve())
        .variable("AWS_ALLOW_HTTP", "true")
        .variable("AWS_REGION", "nowhere")
        .variable("AWS_ACCESS_KEY_ID", "stevedore")
        .variable("AWS_SECRET_ACCESS_KEY", "secret")
}

#[test]
fn objects_are_counted_like_files_and_results_written_beside_them() {
    let store = Store::default();
    let text: String = (0..400).map(|i| format!("crate {i} of tea\n")).collect();
    store.put("in/a.txt", &text);
    store.put("in/b.txt", "tea and coffee");
    store.put("in/c.csv", "not,counted");
    let job = r#"{"task": "wordcount", "results": "s3://harbour/out",
        "split": {"by": "lines", "files": ["s3://harbour/in/*.txt"], "bytes": "1KiB"},
        "reduce": {"task": "merge_counts", "fan_in": 3}}"#;
    let left = given(&store).file("job.json", job).longshore(&["run", "job.json"]);
    assert_eq!(
        left.stdout, "{\"and\":1,\"coffee\":1,\"crate\":400,\"of\":400,\"tea\":401}\n",
        "{left:?}"
    );
    assert_eq!((left.code, left.stderr.as_str()), (Some(0), ""));
    let requests = store.requests.lock().expect("whole");
    assert!(requests.iter().any(|request| request.starts_with("PUT out/")), "{requests:?}");
}

#[test]
fn a_glob_over_a_bucket_that_matches_nothing_is_refused() {
    let store = Store::default();
    store.put("in/a.txt", "a");
    let arguments = ["run", "--task", "wordcount", "--files", "s3://harbour/out/*"];
    let left = given(&store).longshore(&arguments);
    assert_eq!(left.stderr, "error: flags: split.files: no file matches `s3://harbour/out/*`\n");
    assert_eq!(left.code, Some(2));
}
