//! The `registration` command.

use std::fmt;

use serde::Serialize;

use crate::cli::RegistrationSetting;
use crate::failure::Failure;
use crate::operator::Operator;

/// Shows who registers by mail, or changes it.
pub async fn run(setting: Option<RegistrationSetting>, operator: &Operator) -> Result<(), Failure> {
    let store = operator.store();
    let policy = match setting {
        None => store.registration().await?,
        Some(setting) => {
            let policy = match setting {
                RegistrationSetting::Set(policy) => Some(policy),
                RegistrationSetting::Parameter => None,
            };
            store.set_registration(policy.as_ref(), &operator.caller).await?;
            policy
        }
    };
    operator.answer(&RegistrationView { registration: policy.map(|policy| policy.to_string()) })
}

#[derive(Serialize)]
struct RegistrationView {
    /// `None` if the deployment's parameter holds.
    registration: Option<String>,
}

impl fmt::Display for RegistrationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.registration {
            Some(policy) => writeln!(f, "Registration: {policy}"),
            None => writeln!(f, "Registration: as the deployment's parameter Registration says"),
        }
    }
}
