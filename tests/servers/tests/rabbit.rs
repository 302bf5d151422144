//! Private RabbitMQ servers keep data and port over restarts, and leave nothing behind.

use std::process::Command;

use longshore_test_servers::{Rabbit, is_running};

#[test]
fn a_killed_rabbit_comes_back_with_its_data_on_its_port() {
    let mut rabbit = Rabbit::start();
    rabbit.ctl(&["add_vhost", "harbour"]);
    let (url, pid) = (rabbit.url(), rabbit.pid());
    rabbit.kill9();
    assert!(!is_running(pid), "kill9 returned while {pid} runs");
    rabbit.restart();
    assert_eq!(rabbit.url(), url);
    let hosts = rabbit.ctl(&["list_vhosts"]);
    assert!(hosts.lines().any(|host| host == "harbour"), "{hosts}");
    rabbit.stop_app();
    rabbit.start_app();
    rabbit.freeze();
    rabbit.thaw();
    nothing_is_left_of(rabbit);
}

/// Drops the server and waits until no process of its group is left. A defunct process has ended;
/// when it is reaped depends on the init process of the machine.
#[track_caller]
fn nothing_is_left_of(rabbit: Rabbit) {
    let pid = rabbit.pid();
    let group = pid.to_string();
    let members = || {
        let listed = Command::new("ps").args(["-o", "stat=,pid=,args=", "-g", &group]).output();
        let listed = String::from_utf8_lossy(&listed.expect("ps").stdout).into_owned();
        listed.lines().filter(|line| !line.starts_with('Z')).collect::<Vec<_>>().join("\n")
    };
    assert!(members().contains("epmd"), "{}", members());
    drop(rabbit);
    assert!(!is_running(pid), "{pid} still runs");
    assert!(!members().contains("epmd"), "{}", members());
}

#[test]
fn the_shared_rabbit_is_started_once() {
    let port = Rabbit::shared().port();
    assert_eq!(Rabbit::shared().port(), port);
}
