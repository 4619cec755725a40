//! A whole device, answered over the channel: its partitions, and what the superblocks on it say.

use crate::device::Device;
use crate::error::Result;
use crate::ext4::volume;
use crate::partition;
use lazaret_policy::channel::{Channel, ChannelError};
use lazaret_policy::scan::{Scan, Scanned};

/// Answers until the tool hangs up.
pub fn serve(device: &Device, channel: &Channel) -> std::result::Result<(), ChannelError> {
    loop {
        let question = match channel.receive::<Scan>() {
            Ok((question, _)) => question,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = answer(device, &question)
            .unwrap_or_else(|error| Scanned::Failed(rustix::io::Errno::from(&error).raw_os_error()));
        channel.send(&answer, &[])?;
    }
}

fn answer(device: &Device, question: &Scan) -> Result<Scanned> {
    match *question {
        Scan::Table { sector } => {
            // A place that cannot be read holds no file system that could be.
            let is_ext = |offset| volume::volume(device, offset).is_ok_and(|found| found.is_some());
            Ok(Scanned::Table(partition::table(device, sector, &is_ext)?))
        }
        Scan::Volume { offset } => Ok(Scanned::Volume(volume::volume(device, offset)?.map(Box::new))),
    }
}
