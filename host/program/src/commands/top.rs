//! `hotmerge top`: what runs, full-screen, as it changes.
//!
//! One thread draws; three wait: for keys, for signals and for the host. All of them send the first thread events of one type.
//!
//! Invariant: the host is asked once a second at most, and not again before it has answered; the terminal is
//! restored however this ends.
//!
//! Absent on purpose: `output`, because a terminal is drawn on and not written to.

mod question;
mod screen;
mod state;

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use hotmerge_meta::control::{Client, HistoryParams, method};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, KeyEvent, KeyEventKind},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use self::{
    question::{Answer, Question},
    state::{Next, State},
};
use super::host::HostArguments;
use crate::{
    exit::{self, CommandError},
    table,
};

/// How often the host is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long the host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show the plugins full-screen, as they change.
///
/// Arrow keys select a plugin and the column to sort by, `r` reverses the order, Enter shows one plugin with its
/// history, `q` ends. The display is refreshed once a second.
#[derive(Args, Debug)]
pub(super) struct Top {
    #[command(flatten)]
    host: HostArguments,
}

/// Everything that happens.
enum Event {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    Signal(i32),
    Answered(Result<Box<Answer>, CommandError>),
    /// No more keys come: the terminal is gone.
    Closed(io::Error),
}

impl Top {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            let reason =
                "`hotmerge top` needs a terminal; `hotmerge status` writes to files and pipes";
            return Err(CommandError::text(exit::FAILURE, reason));
        }
        // If no host runs, say so without drawing anything.
        let client = self.host.connect()?;
        let (happens, events) = mpsc::channel();
        listen_to_signals(happens.clone()).context("failed to handle signals")?;
        let ask = self.listen_to_host(client, happens.clone());
        let mut terminal = ratatui::try_init().context("failed to prepare the terminal")?;
        listen_to_keys(happens);
        let ended = show(&mut terminal, &events, &ask);
        // It shows the cursor again.
        drop(terminal);
        let restored = ratatui::try_restore().context("failed to restore the terminal");
        if let Some(signal) = ended? {
            // It ends this process as it would have without a handler.
            emulate_default_handler(signal)?;
        }
        Ok(restored?)
    }

    /// Asks the host whatever comes over the channel that it returns.
    fn listen_to_host(self, client: Client, happens: Sender<Event>) -> Sender<Question> {
        let (ask, questions) = mpsc::channel();
        thread::spawn(move || {
            let mut client = Some(client);
            for question in questions {
                let answer = self.answer(&mut client, question).map(Box::new);
                if answer.is_err() {
                    // The next question goes to the host that runs then.
                    client = None;
                }
                if happens.send(Event::Answered(answer)).is_err() {
                    return;
                }
            }
        });
        ask
    }

    fn answer(&self, client: &mut Option<Client>, about: Question) -> Result<Answer, CommandError> {
        let client = match client {
            Some(client) => client,
            None => client.insert(self.host.connect()?),
        };
        let status = HostArguments::request(client, method::STATUS, &(), PATIENCE)?;
        let history = about.map(|plugin| {
            let params = HistoryParams {
                plugin: Some(plugin.clone()),
            };
            // A plugin that is gone may have no history any more.
            let history = client.request(method::HISTORY, &params, PATIENCE);
            (plugin, history.unwrap_or_default())
        });
        Ok(Answer { status, history })
    }
}

fn listen_to_signals(happens: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if happens.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn listen_to_keys(happens: Sender<Event>) {
    thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(event::Event::Resize(..)) => Event::Resized,
                Ok(_) => continue,
                Err(error) => Event::Closed(error),
            };
            let is_last = matches!(event, Event::Closed(_));
            if happens.send(event).is_err() || is_last {
                return;
            }
        }
    });
}

/// Shows what happens until somebody ends it; returns the signal that did.
fn show(
    terminal: &mut DefaultTerminal,
    events: &Receiver<Event>,
    ask: &Sender<Question>,
) -> Result<Option<i32>, CommandError> {
    let mut state = State::new(table::colours_are_wanted());
    let mut due = Instant::now();
    let mut is_asked = false;
    loop {
        if !is_asked && Instant::now() >= due {
            due = Instant::now() + EVERY;
            is_asked = ask.send(state.question()).is_ok();
        }
        terminal
            .draw(|frame| screen::draw(frame, &mut state))
            .context("failed to draw on the terminal")?;
        let event = match is_asked {
            true => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => events.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(Event::Key(key)) => match state.press(key) {
                Next::GoOn => {}
                Next::AskNow => due = Instant::now(),
                Next::End => return Ok(None),
            },
            Ok(Event::Resized) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Answered(answer)) => {
                is_asked = false;
                match answer {
                    Ok(answer) => state.take(*answer, Instant::now()),
                    Err(failure) => state.fail(&failure),
                }
            }
            Ok(Event::Signal(signal)) => return Ok(Some(signal)),
            Ok(Event::Closed(error)) => return Err(error.into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}
