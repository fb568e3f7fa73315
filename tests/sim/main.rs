//! Whole nodes on a virtual LAN, kernel, store and clock: the production loop under faults that
//! seeds choose.
//!
//! `scenarios` tells single stories; `schedules` draws lists of faults from seeds and holds every
//! step against `invariants`. `HAVIP_SEED=n` runs one seed, `HAVIP_SCHEDULES=n` that many,
//! `HAVIP_SECONDS=n` for that long.

mod bounds;
mod coverage;
mod faults;
mod invariants;
mod replay;
mod scenarios;
mod schedules;
mod site;
