//! Landlock: every right that the kernel knows is handled, none is granted.
//!
//! It holds for fds opened later, and nothing is opened later; it is here for the day a filter row is wrong.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The newest ABI whose rights are asked for; older kernels enforce what they know.
const WANTED: ABI = ABI::V7;

/// What the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// The ABI, 0 where the kernel has no Landlock.
    pub abi: u8,
    /// Signals and abstract sockets end at this process (ABI 6).
    pub scopes: bool,
}

/// Denies everything to this thread and those it starts.
pub fn deny_all() -> Result<Enforced, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .restrict_self()?;
    let abi = match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) | (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => {
            u8::try_from(effective_abi.min(WANTED) as i32).unwrap_or(0)
        }
    };
    Ok(Enforced { abi, scopes: abi >= ABI::V6 as u8 })
}
