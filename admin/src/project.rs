//! The `project` commands.

use std::fmt;

use serde::Serialize;
use shared::ids::OrgId;

use crate::cli::{Project, ProjectCommand};
use crate::failure::Failure;
use crate::operator::Operator;

/// Runs a `project` command.
pub async fn run(command: ProjectCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    match command {
        ProjectCommand::Add { project: Project { name, org } } => {
            operator.require_org(&org).await?;
            if !store.add_project(&org, &name, caller).await? {
                return Err(Failure::ProjectExists(org, name));
            }
            operator.answer(&ProjectView { change: ("Added", "to"), org_id: org, project: name })
        }
        ProjectCommand::Remove { project: Project { name, org } } => {
            operator.require_org(&org).await?;
            if !store.remove_project(&org, &name, caller).await? {
                return Err(Failure::NoSuchProject(org, name));
            }
            operator.answer(&ProjectView { change: ("Removed", "from"), org_id: org, project: name })
        }
        ProjectCommand::List { org } => {
            operator.require_org(&org).await?;
            operator.answer(&ProjectsView { projects: store.projects(&org).await? })
        }
    }
}

#[derive(Serialize)]
struct ProjectView {
    /// Verb and preposition, for the text output.
    #[serde(skip)]
    change: (&'static str, &'static str),
    org_id: OrgId,
    project: String,
}

impl fmt::Display for ProjectView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, preposition) = self.change;
        writeln!(f, "{verb} project {} {preposition} organization {}", self.project, self.org_id)
    }
}

#[derive(Serialize)]
struct ProjectsView {
    projects: Vec<String>,
}

impl fmt::Display for ProjectsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.projects.is_empty() {
            return writeln!(f, "No projects found.");
        }
        self.projects.iter().try_for_each(|project| writeln!(f, "{project}"))
    }
}
