//! The promises about sockets to an operator.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use daemon::Exit;
use daemon::sockets::{SocketError, bind_tcp, bind_unix};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// One sentence that names the path and nothing that would break a line.
fn assert_clear(error: &SocketError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("; ") && !text.contains('\n') && !text.ends_with('.'), "{text}");
}

#[test]
fn a_new_socket_has_exactly_its_mode_and_its_directory_is_private() {
    let folder = folder();
    let path = folder.path().join("run/deep/a.sock");
    let listener = bind_unix(&path, 0o660).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o750);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn a_socket_left_by_a_dead_process_is_replaced() {
    let folder = folder();
    let path = folder.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _listener = bind_unix(&path, 0o600).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_socket_that_a_process_listens_on_is_not_touched() {
    let folder = folder();
    let path = folder.path().join("a.sock");
    let first = bind_unix(&path, 0o600).unwrap();
    let before = std::fs::metadata(&path).unwrap().ino();
    let error = bind_unix(&path, 0o600).unwrap_err();
    assert_clear(&error, &path);
    let pid = std::process::id();
    assert!(error.to_string().contains(&format!("in use by another process (pid {pid})")), "{error}");
    assert_eq!(Exit::from(&error), Exit::Locked);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    drop(first.accept().unwrap()); // the probe
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_stuck_listener_with_a_full_queue_counts_as_alive() {
    let folder = folder();
    let path = folder.path().join("a.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    let error = bind_unix(&path, 0o600).unwrap_err();
    assert!(matches!(error, SocketError::InUse { pid: None, .. }), "{error}");
}

#[test]
fn a_file_that_is_not_a_listening_socket_is_left_alone() {
    let folder = folder();
    let (file, directory, link, other) =
        (folder.path().join("f"), folder.path().join("d"), folder.path().join("l"), folder.path().join("o"));
    std::fs::write(&file, "precious").unwrap();
    std::fs::create_dir(&directory).unwrap();
    symlink(folder.path().join("nowhere"), &link).unwrap();
    let _datagrams = UnixDatagram::bind(&other).unwrap();
    for path in [&file, &directory, &link, &other] {
        let error = bind_unix(path, 0o600).unwrap_err();
        assert_clear(&error, path);
        assert!(path.symlink_metadata().is_ok());
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(bind_unix(&file, 0o600).unwrap_err().exit().code(), 74);
}

#[test]
fn an_unusable_path_is_named() {
    let folder = folder();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let below_a_file = folder.path().join("file/a.sock");
    let too_long = folder.path().join("x".repeat(120));
    for path in [&below_a_file, &too_long] {
        let error = bind_unix(path, 0o600).unwrap_err();
        assert_clear(&error, path);
        assert_eq!(error.exit(), Exit::Io);
    }
}

#[test]
fn of_many_processes_that_start_at_once_exactly_one_gets_the_socket() {
    let folder = folder();
    let path = folder.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let results: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| bind_unix(&path, 0o600))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| matches!(e, SocketError::InUse { .. })));
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_port_in_use_is_one_clear_sentence() {
    let first = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = bind_tcp(address).unwrap_err();
    let expected = format!(
        "port {} at 127.0.0.1 is in use by another process; stop that process or set a different gateway.listen",
        address.port()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.exit().code(), 74);
}

#[test]
fn an_address_that_the_machine_does_not_have_is_reported_with_a_remedy() {
    let error = bind_tcp("192.0.2.1:8700".parse().unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot listen on 192.0.2.1:8700: ") && error.contains("that this machine has"),
        "{error}"
    );
}

#[test]
fn the_error_names_the_key_that_moves_the_socket() {
    let folder = folder();
    for (name, key) in [
        ("gateway-admin.sock", "gateway.admin_dir"),
        ("ingestd-admin.sock", "daemon.run_dir"),
        ("ingestd.sock", "daemon.run_dir"),
    ] {
        let path = folder.path().join(name);
        let _listener = bind_unix(&path, 0o600).unwrap();
        let error = bind_unix(&path, 0o600).unwrap_err().to_string();
        assert!(error.ends_with(&format!("; stop that process or set a different {key}")), "{error}");
    }
}
