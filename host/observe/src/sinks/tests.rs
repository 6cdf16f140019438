//! Routes and sinks together.

use super::*;

fn record(level: LogLevel, target: &'static str) -> Arc<Record> {
    Arc::new(Record::new(level, target))
}

#[cfg(feature = "log-file")]
mod files {
    use std::path::Path;

    use hotmerge_meta::Trust;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    fn file(dir: &Path, name: &str, keep: u32) -> SinkSettings {
        SinkSettings {
            name: name.to_owned(),
            queue_bytes: 1 << 20,
            kind: Kind::File(FileSettings {
                path: dir.join(name),
                max_bytes: 0,
                keep,
                trust: Trust::anybody(),
            }),
        }
    }

    fn route(level: LogLevel, to: &[&str]) -> Route {
        Route {
            level: Some(level),
            to: to.iter().map(|it| (*it).to_owned()).collect(),
            ..Route::default()
        }
    }

    fn lines(dir: &Path, name: &str) -> usize {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().count()
    }

    #[test]
    fn records_reach_the_sinks_of_their_routes() {
        let dir = tempfile::tempdir().unwrap();
        let router = Router::start(Plan {
            sinks: vec![file(dir.path(), "all", 1), file(dir.path(), "errors", 1)],
            routes: vec![
                route(LogLevel::Trace, &["all"]),
                route(LogLevel::Error, &["errors", "all"]),
            ],
        });
        assert!(!router.take(&record(LogLevel::Info, "hotmerge::host")));
        assert!(!router.take(&record(LogLevel::Error, "plugin")));
        assert_eq!(router.close(SOON), []);
        assert_eq!(
            (lines(dir.path(), "all"), lines(dir.path(), "errors")),
            (2, 1)
        );
        let delivered: Vec<_> = router.status().iter().map(|it| it.delivered).collect();
        assert_eq!(delivered, [2, 1]);
    }

    #[test]
    fn other_settings_lose_no_record_and_keep_counts() {
        let dir = tempfile::tempdir().unwrap();
        let plan = |keep| Plan {
            sinks: vec![file(dir.path(), "a", keep)],
            routes: vec![route(LogLevel::Trace, &["a"])],
        };
        let router = Router::start(plan(1));
        for round in 0..10 {
            for _ in 0..100 {
                router.take(&record(LogLevel::Info, "plugin"));
            }
            // Every second time nothing changes.
            router.apply(plan(1 + round / 2));
        }
        assert_eq!(router.close(SOON), []);
        let status = &router.status()[0];
        assert_eq!(
            (status.delivered, status.dropped, status.failed),
            (1000, Default::default(), 0)
        );
        assert_eq!(lines(dir.path(), "a"), 1000);
    }

    #[test]
    fn a_sink_that_is_gone_gets_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let plan = |name: &str| Plan {
            sinks: vec![file(dir.path(), name, 1)],
            routes: vec![route(LogLevel::Trace, &[name])],
        };
        let router = Router::start(plan("a"));
        router.take(&record(LogLevel::Info, "plugin"));
        router.apply(plan("b"));
        router.take(&record(LogLevel::Info, "plugin"));
        assert_eq!(router.close(SOON), []);
        let names: Vec<_> = router.status().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["b"]);
        assert_eq!(lines(dir.path(), "b"), 1);
    }

    #[test]
    fn a_hanging_sink_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("hangs");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        // Somebody has it open and does not read.
        let reader = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&fifo)
            .unwrap();
        let router = Router::start(Plan {
            sinks: vec![file(dir.path(), "hangs", 1), file(dir.path(), "works", 1)],
            routes: vec![route(LogLevel::Trace, &["hangs", "works"])],
        });
        let produced = 20_000;
        for _ in 0..produced {
            router.take(&record(LogLevel::Info, "plugin"));
            // The other one keeps up.
            while router.status()[1].waiting > 100 {
                thread::yield_now();
            }
        }
        let [hangs, works] = &router.status()[..] else {
            panic!("two");
        };
        assert!(
            hangs.dropped.plugins > 0 && hangs.dropped.host == 0,
            "{hangs:?}"
        );
        let sum = hangs.delivered + hangs.dropped.plugins + hangs.failed + hangs.waiting;
        assert_eq!(sum, produced, "{hangs:?}");
        assert_eq!(works.dropped.plugins, 0, "{works:?}");
        let began = Instant::now();
        let left = router.close(Duration::from_millis(50));
        assert!(began.elapsed() < SOON / 2);
        assert!(
            left.iter().any(|it| it.sink == "hangs" && it.records > 0),
            "{left:?}"
        );
        assert_eq!(lines(dir.path(), "works") as u64, produced);
        drop(reader);
    }
}

#[test]
fn by_default_all_lines_go_to_standard_error() {
    let router = Router::start(Plan::default());
    assert!(router.take(&record(LogLevel::Trace, "hotmerge::host")));
    assert_eq!(router.status()[0].kind, "stderr");
}

#[test]
fn without_a_route_a_record_goes_nowhere() {
    let router = Router::start(Plan {
        routes: Vec::new(),
        ..Plan::default()
    });
    assert!(!router.take(&record(LogLevel::Error, "plugin")));
}
