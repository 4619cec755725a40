//! The desktop's side of the agent: org.freedesktop.Notifications, version 1.2 of its specification.
//!
//! What holds here: summaries are words of ours, since servers differ in what they do with them; what comes from a stick
//! stands in the body, harmless. Each stick has one notification, which the next replaces. zbus has no other interface than
//! an asynchronous one; this file is all of that.

use crate::daemon::Daemon;
use crate::text::harmless;
use lazaret_policy::notice::{Choice, Event, Notice};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use zbus::export::futures_core::Stream;
use zbus::zvariant::Variant;
use zbus::{Connection, Message, Proxy};

const NAME: &str = "org.freedesktop.Notifications";
const PLACE: &str = "/org/freedesktop/Notifications";
/// What the user may answer: the name of the action, and its button.
const YES: [&str; 2] = ["mount", "Mount"];
const NO: [&str; 2] = ["ignore", "Leave alone"];

/// What has come.
enum Came {
    Notice(Notice),
    Signal(Message),
    /// The bus is gone.
    End,
}

/// Shows what the daemon tells until the bus is gone.
pub(crate) async fn serve(daemon: Daemon) -> zbus::Result<()> {
    let connection = Connection::session().await?;
    let proxy = Proxy::new(&connection, NAME, PLACE, NAME).await?;
    let mut actions = proxy.receive_signal("ActionInvoked").await?;
    // The number of a stick's notification, as the server gives it.
    let mut shown: HashMap<u32, u32> = HashMap::new();
    loop {
        let came = poll_fn(|context| {
            if let Some(notice) = daemon.notice(context.waker()) {
                return Poll::Ready(Came::Notice(notice));
            }
            Pin::new(&mut actions).poll_next(context).map(|signal| signal.map_or(Came::End, Came::Signal))
        });
        match came.await {
            Came::Notice(notice) if notice.event == Event::Withdrawn => {
                if let Some(number) = shown.remove(&notice.stick) {
                    // It may be closed already.
                    let _: zbus::Result<()> = proxy.call("CloseNotification", &(number,)).await;
                }
            }
            Came::Notice(notice) => {
                let number = show(&proxy, &notice, shown.get(&notice.stick).copied().unwrap_or(0)).await?;
                shown.insert(notice.stick, number);
            }
            Came::Signal(signal) => {
                let Ok((number, action)) = signal.body().deserialize::<(u32, String)>() else { continue };
                let stick = shown.iter().find(|(_, own)| **own == number).map(|(stick, _)| *stick);
                if let Some(stick) = stick.filter(|_| [YES[0], NO[0]].contains(&action.as_str())) {
                    daemon.choose(Choice { stick, mount: action == YES[0] });
                }
            }
            Came::End => return Ok(()),
        }
    }
}

/// Shows a notice in the place of another; its number.
async fn show(proxy: &Proxy<'_>, notice: &Notice, replaces: u32) -> zbus::Result<u32> {
    // Asked each time: the server may be another by now.
    let capabilities: Vec<String> = proxy.call("GetCapabilities", &()).await?;
    let markup = capabilities.iter().any(|capability| capability == "body-markup");
    let (summary, icon, category, urgency) = words(notice.event);
    let mut body = harmless(&notice.title, markup);
    if !notice.text.is_empty() {
        body.push('\n');
        body.push_str(&harmless(&notice.text, markup));
    }
    let asks = notice.event == Event::Ask;
    let actions: &[&str] = if asks { &[YES[0], YES[1], NO[0], NO[1]] } else { &[] };
    let hints = HashMap::from([("urgency", Variant::from(urgency)), ("category", Variant::from(category))]);
    // A question stays until it is answered, the rest as long as the server likes.
    let expires = if asks { 0_i32 } else { -1 };
    proxy.call("Notify", &("Lazaret", replaces, icon, summary, body, actions, hints, expires)).await
}

/// The summary, the icon's name, the category and the urgency.
fn words(event: Event) -> (&'static str, &'static str, &'static str, u8) {
    const DRIVE: &str = "drive-removable-media";
    match event {
        Event::Mounted => ("A stick was mounted", DRIVE, "device.added", 1),
        Event::Refused => ("A stick was refused", "dialog-error", "device.error", 2),
        Event::Unplugged => ("A stick was pulled out while it was mounted", "dialog-warning", "device.removed", 2),
        Event::Ended => ("A stick is not mounted any more", DRIVE, "device", 1),
        Event::Ask => ("Mount this stick?", "dialog-question", "device.added", 1),
        Event::Withdrawn => ("A stick is gone", DRIVE, "device.removed", 0),
    }
}
