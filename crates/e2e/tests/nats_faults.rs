//! Every fault of `scripts/torture --nats` once, on a small scale.

use e2e::{FaultRow, NatsFault, NatsRun, NatsRunSize, log_line, nats_server_program};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_nats_no_client_loses_or_doubles_an_item_and_resets_come_where_promised() {
    if nats_server_program().is_none() {
        return;
    }
    let mut run = NatsRun::start(NatsRunSize::brief()).await.unwrap();
    let mut wrong = Vec::new();
    log_line(FaultRow::HEAD);
    for fault in NatsFault::ALL {
        let row = run.row(fault).await.unwrap();
        log_line(&row.to_string());
        wrong.extend(row.faults.into_iter().map(|text| format!("{fault}: {text}")));
    }
    if !wrong.is_empty() {
        run.show_logs();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
