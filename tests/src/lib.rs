//! Tools the checks share.
