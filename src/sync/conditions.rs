//! Conditions, as the conventions of Kubernetes have them: one of a type, and its time is that of its last change of value.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::whole_seconds;

/// Whether the object is as its spec asks.
pub(super) const READY: &str = "Ready";

/// A workload is still to be restarted.
pub(super) const ROLLOUT_PENDING: &str = "RolloutPending";

/// What a status tells of, whatever the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Generation of the spec that was acted on.
    pub generation: Option<i64>,
    /// The sync annotation that was acted on.
    pub sync: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// The condition of a type.
pub(super) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Removes the condition of a type.
pub(super) fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Sets the condition of a type; its time moves only with its value.
pub(super) fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    context: Context<'_>,
) {
    let since = find(conditions, type_)
        .filter(|condition| condition.status == status)
        .map_or(whole_seconds(context.now), |condition| {
            condition.last_transition_time.clone()
        });
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: context.generation,
        last_transition_time: since,
    };
    match conditions
        .iter_mut()
        .find(|condition| condition.type_ == type_)
    {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}
