#!/usr/bin/env python3
"""Runs schemathesis against `longshore dev --serve`: as anyone, then as each role.

Requests are made from the server's own OpenAPI document. A failure is an answer of 500 or more, a
status or a content type that the document does not have, or an answer that its schema refuses.

Usage: run.py TOOL PROGRAM [SECONDS], where TOOL is the program `schemathesis` and PROGRAM is
`longshore`. The seed is printed, and can be given as LONGSHORE_TESTER_SEED.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import urllib.request

CHECKS = ",".join([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
])

# These answers go on for as long as the client listens or the job runs; the suite of the crate
# tests them.
ENDLESS = ["/v1/events", "/v1/jobs/{job}/events", "/v1/jobs/{job}/wait"]

# Token of the calls that prepare the server, name of the caller, part of the time.
CALLERS = [
    ("anyone", None, 3),
    ("viewer", {"role": "viewer"}, 1),
    ("submitter", {"role": "submitter"}, 1),
    ("operator", {"role": "operator"}, 2),
    ("operator of a tenant", {"role": "operator", "tenants": ["default"]}, 1),
    ("a token that is not valid", {}, 1),
    ("admin", {"role": "admin"}, 2),
]


def call(url, method, path, body=None, token=None):
    """The answer to a request that has to succeed, as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, method=method)
    if data:
        request.add_header("content-type", "application/json")
    if token:
        request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def submit(url, document):
    return call(url, "POST", "/v1/jobs", document)["id"]


def prepare(url):
    """Makes jobs in several states, and gives their ids."""
    span = {"by": "range", "start": 0, "end": 20}
    done = submit(url, {"task": "noop", "split": span, "name": "done", "labels": {"zone": "eu"}})
    failed = submit(url, {"task": "fail", "split": span, "retry": {"attempts": 1}})
    reduced = submit(url, {
        "task": "sum", "split": {"by": "items", "items": [[1], [2], [3]]},
        "reduce": {"task": "sum"},
    })
    slow = submit(url, {"task": "sleep", "params": {"ms": 100}, "split": {**span, "end": 5000}})
    paused = submit(url, {"task": "sleep", "params": {"ms": 100}, "split": span})
    call(url, "POST", f"/v1/jobs/{paused}/pause")
    elsewhere = submit(url, {"task": "noop", "queue": "elsewhere", "split": span})
    for job in (done, failed, reduced):
        call(url, "GET", f"/v1/jobs/{job}/wait?timeout=20s")
    return [done, failed, reduced, slow, paused, elsewhere]


def description(url, jobs, node, folder, with_tokens):
    """The server's description, in which ids of jobs and workers that are there are frequent."""
    with urllib.request.urlopen(url + "/openapi.json", timeout=30) as answer:
        document = json.load(answer)
    for path in ENDLESS:
        del document["paths"][path]
    if not with_tokens:
        del document["paths"]["/v1/tokens"]["post"]
    known = {"job": jobs, "node": [node]}
    for operations in document["paths"].values():
        for operation in operations.values():
            # Results that are followed come for as long as the job runs.
            operation["parameters"] = [
                it for it in operation.get("parameters", []) if it["name"] != "follow"
            ]
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] in known:
                    some = {"enum": known[parameter["name"]]}
                    parameter["schema"] = {"anyOf": [some, parameter["schema"]]}
                if parameter["name"] == "within":
                    parameter["schema"] = {"enum": ["1ms", "1s"]}
    path = os.path.join(folder, f"openapi-{with_tokens}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)
    return path


def make_tokens(url):
    """Makes the tokens of all callers. The admin comes last, because it may revoke any of them."""
    root = call(url, "POST", "/v1/tokens", {"name": "root", "role": "admin"})["secret"]
    tokens = {}
    for name, wanted, _ in CALLERS:
        if wanted:
            token = call(url, "POST", "/v1/tokens", {"name": name, **wanted}, root)
            tokens[name] = token["secret"]
        elif wanted is not None:
            tokens[name] = "longshore_" + "0" * 64
    return tokens


def test(tool, document, url, token, seconds, seed, folder):
    """Runs the tool once; gives whether it found nothing."""
    command = [
        tool, "run", document, "--url", url, "--checks", CHECKS, "--seed", str(seed),
        "--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get(
            "LONGSHORE_TESTER_EXAMPLES", "20"),
        "--max-time", str(seconds), "--request-timeout", "20", "--continue-on-failure",
        "--warnings", "off", "--no-color", "--suppress-health-check", "all",
        "--generation-database", "none",
    ]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def main():
    tool, program = (os.path.abspath(path) for path in sys.argv[1:3])
    seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    seed = int(os.environ.get("LONGSHORE_TESTER_SEED", random.randrange(1 << 31)))
    print(f"seed {seed}; LONGSHORE_TESTER_SEED={seed} repeats it", flush=True)
    parts = sum(part for _, _, part in CALLERS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "LONGSHORE_HTTP_LISTEN": "127.0.0.1:0"}
        server = subprocess.Popen(
            [program, "dev", "--serve", "--slots", "2"], cwd=folder, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        try:
            line = server.stderr.readline()
            url = line.strip().rpartition(" ")[2]
            if not url.startswith("http://"):
                sys.exit(f"the server does not start: {line}{server.stderr.read()}")
            # Its log must not fill the pipe.
            log = threading.Thread(target=lambda: sys.stderr.writelines(server.stderr), daemon=True)
            log.start()
            jobs = prepare(url)
            node = call(url, "GET", "/v1/nodes")[0]["id"]
            document = description(url, jobs, node, folder, with_tokens=True)
            tokens = {}
            for name, wanted, part in CALLERS:
                of_caller = document
                if wanted is None:
                    # The first token would end the time in which none is needed.
                    of_caller = description(url, jobs, node, folder, with_tokens=False)
                elif not tokens:
                    tokens = make_tokens(url)
                token = tokens.get(name)
                print(f"--- as {name}", flush=True)
                time = max(2, seconds * part // parts)
                if not test(tool, of_caller, url, token, time, seed, folder):
                    found.append(name)
                if server.poll() is not None:
                    sys.exit("the server ended")
        finally:
            server.terminate()
            server.wait(timeout=20)
    if found:
        sys.exit(f"findings as {', '.join(found)}; seed {seed}")


if __name__ == "__main__":
    main()
