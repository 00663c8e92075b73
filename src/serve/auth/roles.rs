//! What a role may do, and which one each endpoint needs. Pure.

use super::super::routes::Endpoint;

/// What someone may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything, change nothing.
    Read,
    /// Send alerts, and nothing else: not even look.
    Trigger,
    /// Look, send alerts, start and stop, scale by hand, order about operations: all that the guards watch over.
    Operate,
    /// All of it: also the lines and bounds, a reload, and the word of a person in place of proof.
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Read, Role::Trigger, Role::Operate, Role::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Trigger => "trigger",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }

    /// Whether this role may do what needs that one.
    pub fn covers(self, needed: Role) -> bool {
        match self {
            Role::Admin => true,
            Role::Operate => needed != Role::Admin,
            Role::Read | Role::Trigger => self == needed,
        }
    }
}

/// The role that an endpoint needs; `None`: whoever asks is answered. Kubelets and load balancers carry no credentials,
/// and the two probes say one sentence, always the same.
pub fn needed(endpoint: Endpoint) -> Option<Role> {
    match endpoint {
        Endpoint::Healthy | Endpoint::Ready => None,
        Endpoint::Index
        | Endpoint::Metrics
        | Endpoint::Status
        | Endpoint::Thresholds
        | Endpoint::History
        | Endpoint::Observations
        | Endpoint::Analytics
        | Endpoint::Decisions
        | Endpoint::Decision
        | Endpoint::Operations
        | Endpoint::Operation
        | Endpoint::Plan
        | Endpoint::Targets => Some(Role::Read),
        Endpoint::Alertmanager => Some(Role::Trigger),
        Endpoint::Start
        | Endpoint::Stop
        | Endpoint::ScaleUp
        | Endpoint::ScaleDown
        | Endpoint::Rebalance
        | Endpoint::Maintain
        | Endpoint::EndMaintenance
        | Endpoint::Drain
        | Endpoint::OpenAgain
        | Endpoint::Cancel
        | Endpoint::Pause
        | Endpoint::Resume
        | Endpoint::Retry
        | Endpoint::ResetBreaker => Some(Role::Operate),
        Endpoint::Reload
        | Endpoint::SetThresholds
        | Endpoint::DropThresholds
        | Endpoint::Resolve
        | Endpoint::Adopt
        | Endpoint::Reap => Some(Role::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_what_it_says() {
        for (role, covered) in [
            (Role::Read, vec![Role::Read]),
            (Role::Trigger, vec![Role::Trigger]),
            (Role::Operate, vec![Role::Read, Role::Trigger, Role::Operate]),
            (Role::Admin, Role::ALL.to_vec()),
        ] {
            let got: Vec<Role> = Role::ALL.into_iter().filter(|needed| role.covers(*needed)).collect();
            assert_eq!(got, covered, "{role:?}");
        }
    }
}
