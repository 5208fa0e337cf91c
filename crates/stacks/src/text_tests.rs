//! Formatting of frames and threads, and the frame to blame.

use super::*;

fn frame(function: &str) -> StackFrame {
    let module = if function.contains("::") { "newswire-gateway" } else { "libc.so.6" };
    StackFrame {
        address: 0x1000,
        module: module.to_owned(),
        function: Some(function.to_owned()),
        file: None,
        line: None,
        inlined: false,
    }
}

fn thread(functions: &[&str]) -> ThreadStack {
    ThreadStack {
        tid: 7,
        name: "worker-0".to_owned(),
        state: 'S',
        wchan: Some("anon_pipe_read".to_owned()),
        frames: functions.iter().map(|function| frame(function)).collect(),
        missing: None,
    }
}

fn culprit(functions: &[&str]) -> Option<String> {
    thread(functions).culprit().and_then(|frame| frame.function.clone())
}

#[test]
fn the_innermost_workspace_frame_is_blamed() {
    let functions = [
        "read",
        "std::io::Read::read",
        "tokio::runtime::coop::budget",
        "<newswire_gateway::stream::Body as futures_core::stream::Stream>::poll_next",
        "newswire_gateway::routes::news",
        "<daemon::work::During<F> as core::future::future::Future>::poll",
        "newswire_gateway::run",
    ];
    assert_eq!(culprit(&functions).as_deref(), Some(functions[3]));
    assert_eq!(
        culprit(&["fsync", "sled::pagecache::flush", "store::write::commit"]).as_deref(),
        Some("store::write::commit")
    );
}

#[test]
fn a_frame_that_only_calls_others_is_not_blamed() {
    let functions = [
        "syscall",
        "parking_lot::lock",
        "sled::io",
        "<daemon::work::During<F> as Future>::poll",
        "newswire_gateway::main",
    ];
    assert_eq!(culprit(&functions).as_deref(), Some("sled::io"));
    assert_eq!(
        culprit(&["syscall", "std::thread::park", "news::run::{{closure}}"]).as_deref(),
        Some("news::run::{{closure}}")
    );
}

#[test]
fn a_name_that_only_begins_like_one_of_ours_is_not_ours() {
    assert_eq!(culprit(&["newswire_else::f", "wire::g"]).as_deref(), Some("wire::g"));
    assert_eq!(culprit(&["read", "std::io::read"]), None);
}

#[test]
fn a_thread_of_the_stores_pool_without_a_job_is_idle_in_every_build() {
    for waiter in ["sled::threadpool::Queue::recv_timeout", "sled::threadpool::recv_timeout"] {
        let functions = ["syscall", "parking_lot::condvar::Condvar::wait_until_internal", waiter];
        assert!(thread(&functions).is_idle(), "{waiter}");
    }
    let at_work =
        ["syscall", "parking_lot::condvar::Condvar::wait_until_internal", "sled::threadpool::perform_work"];
    assert!(!thread(&at_work).is_idle());
}

#[test]
fn a_thread_of_our_own_without_an_order_is_idle_in_every_build() {
    for waiter in ["store::flush::FlushOrders::next", "store::flush::next"] {
        assert!(thread(&["syscall", "std::sync::poison::condvar::wait", waiter]).is_idle(), "{waiter}");
    }
    assert!(!thread(&["syscall", "std::sync::poison::condvar::wait", "store::flush::run"]).is_idle());
}

#[test]
fn a_thread_of_the_allocator_without_work_is_idle() {
    let waiting =
        ["pthread_cond_timedwait@@GLIBC_2.3.2", "background_thread_sleep", "background_work_sleep_once"];
    assert!(
        thread(&[waiting.as_slice(), &["background_work", "background_thread_entry"]].concat()).is_idle()
    );
    assert!(
        !thread(&["madvise", "pages_purge_lazy", "background_work", "background_thread_entry"]).is_idle()
    );
}

#[test]
fn an_event_loop_without_events_is_idle() {
    let functions = [
        "epoll_wait",
        "mio::sys::unix::selector::Selector::select",
        "tokio::runtime::io::driver::Driver::turn",
        "tokio::runtime::scheduler::current_thread::Context::park",
        "newswire_gateway::run",
    ];
    assert!(thread(&functions).is_idle());
    // The same under a task that runs on the pool: a job that waits.
    let job = [
        &functions[..4],
        &["<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll"],
    ];
    assert!(!thread(&job.concat()).is_idle());
}

#[test]
fn a_runtime_worker_is_idle_although_it_runs_on_the_blocking_pool() {
    let functions = [
        "syscall",
        "parking_lot_core::thread_parker::imp::ThreadParker::futex_wait",
        "tokio::loom::std::parking_lot::Condvar::wait",
        "tokio::runtime::scheduler::multi_thread::park::Inner::park_condvar",
        "tokio::runtime::scheduler::multi_thread::worker::Context::park",
        "<tokio::runtime::blocking::task::BlockingTask<T> as core::future::future::Future>::poll",
    ];
    assert!(thread(&functions).is_idle());
}

#[test]
fn a_dedicated_thread_is_idle_at_its_queue_and_an_event_loop_is_not() {
    let inbox = [
        "syscall",
        "std::thread::park",
        "std::sync::mpsc::Receiver<T>::recv",
        "newswire_ingestd::recorder::work",
    ];
    assert!(thread(&inbox).is_idle());
    let blocked = [&inbox[..], &["tokio::runtime::task::raw::poll"]].concat();
    assert!(!thread(&blocked).is_idle());
}

#[test]
fn a_thread_that_reads_sleeps_or_waits_for_a_lock_is_not_idle() {
    assert!(!thread(&["read", "newswire_gateway::drill::block"]).is_idle());
    assert!(!thread(&["clock_nanosleep", "std::thread::sleep", "newswire_gateway::drill::block"]).is_idle());
    assert!(!thread(&["syscall", "std::sync::poison::mutex::Mutex<T>::lock", "store::open"]).is_idle());
    assert!(
        !thread(&["syscall", "parking_lot::raw_mutex::RawMutex::lock_slow", "sled::pagecache::lock"])
            .is_idle()
    );
    assert!(!thread(&[]).is_idle());
}

#[test]
fn paths_are_stripped_of_the_build_machine() {
    for (long, short) in [
        (
            "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.0/src/runtime/park.rs",
            "tokio-1.54.0/src/runtime/park.rs",
        ),
        (
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/sys/fd.rs",
            "library/std/src/sys/fd.rs",
        ),
        (
            "/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/x.rs",
            "library/core/src/x.rs",
        ),
        ("/rust/deps/hashbrown-0.15.2/src/raw.rs", "hashbrown-0.15.2/src/raw.rs"),
        ("/home/me/crates/newswire/crates/gateway/src/drill.rs", "crates/gateway/src/drill.rs"),
        ("crates/gateway/src/drill.rs", "crates/gateway/src/drill.rs"),
        ("/home/me/vendor/slab/src/lib.rs", "slab/src/lib.rs"),
        ("./nptl/pthread_create.c", "nptl/pthread_create.c"),
        ("/home/me/glibc/nptl/pthread_create.c", "pthread_create.c"),
    ] {
        assert_eq!(shorten_path(long), short);
    }
}

#[test]
fn a_bare_name_is_completed_from_its_file() {
    assert_eq!(qualify("recv<u32>", "library/std/src/sync/mpsc.rs"), "std::sync::mpsc::recv<u32>");
    assert_eq!(qualify("park", "tokio-1.54.0/src/runtime/park/mod.rs"), "tokio::runtime::park::park");
    assert_eq!(qualify("{closure#0}<a::B>", "crates/gateway/src/lib.rs"), "gateway::{closure#0}<a::B>");
    assert_eq!(qualify("f", "actix-web-4.18.1/src/a/b.rs"), "actix_web::a::b::f");
    assert_eq!(qualify("spinning", "crates/stacks/examples/busy.rs"), "busy::spinning");
    assert_eq!(qualify("news::a::f", "crates/gateway/src/lib.rs"), "news::a::f");
    assert_eq!(qualify("<A as B>::f", "crates/gateway/src/lib.rs"), "<A as B>::f");
    assert_eq!(qualify("read", "nptl/read.c"), "read");
}

#[test]
fn the_dump_has_the_format_of_a_jvm_thread_dump() {
    let mut thread = thread(&["read", "newswire_gateway::drill::block"]);
    thread.frames[1].file = Some("crates/gateway/src/drill.rs".to_owned());
    thread.frames[1].line = Some(12);
    assert_eq!(
        thread.to_string(),
        "\"worker-0\" tid=7 state=S wchan=anon_pipe_read\n    at read (libc.so.6)\n    \
         at newswire_gateway::drill::block (crates/gateway/src/drill.rs:12)"
    );
    assert_eq!(
        thread.frames[1].to_string(),
        "newswire_gateway::drill::block at crates/gateway/src/drill.rs:12"
    );
    assert_eq!(thread.frames[0].to_string(), "read in libc.so.6");
    thread.frames.clear();
    thread.missing = Some("run as root".to_owned());
    assert!(thread.to_string().ends_with("\n    no stack: run as root"));
}

#[test]
fn a_frame_of_the_allocator_is_not_blamed_but_its_caller() {
    let functions = [
        "malloc",
        "__rustc::__rdl_alloc",
        "alloc::raw_vec::finish_grow",
        "hashbrown::raw::RawTable::reserve_rehash",
        "actix_http::h1::dispatcher::Dispatcher::poll_request",
        "actix_rt::arbiter::spin",
    ];
    assert_eq!(culprit(&functions).as_deref(), Some(functions[4]));
    assert_eq!(
        culprit(&[
            "je_arena_malloc",
            "__rustc::__rust_alloc",
            "tikv_jemallocator::Jemalloc::alloc",
            "h2::proto"
        ])
        .as_deref(),
        Some("h2::proto")
    );
}
