//! The cases on back ends that fail: nothing is said to be delivered, nothing is thrown away that the back end did not
//! refuse, nothing is tried twice, and afterwards it works again.

use magicapi_plugin::Delivery;

use crate::backend::{Backend, Behaviour};
use crate::records;
use crate::stage::{HANGS, SHORT, Stage, delivers, rejects};

/// Connections that one export may need.
const MOST_CONNECTIONS: usize = 3;

/// An exporter before a back end that fails from the beginning, then one whose back end begins to fail and recovers.
pub(crate) fn fault(stage: &Stage, behaviour: Behaviour) {
    from_the_beginning(stage, behaviour);
    in_between(stage, behaviour);
}

fn from_the_beginning(stage: &Stage, behaviour: Behaviour) {
    let Some((backend, exporter, begun)) = stage.started(behaviour) else { return };
    let asked = !backend.requests().is_empty() || backend.connections() > 0;
    let unanswered = matches!(behaviour, Behaviour::Dead | Behaviour::Closing | Behaviour::Garbage);
    if asked && unanswered && begun == Some(true) {
        stage.finding("init asks, gets no answer, and says that all is well");
    }
    judged(stage, &backend, behaviour, |patience| stage.export(&*exporter, &records::batch(3), patience));
    stage.end(&*exporter);
}

fn in_between(stage: &Stage, behaviour: Behaviour) {
    let Some((backend, exporter, begun)) = stage.started(Behaviour::Well) else { return };
    let well = stage.export(&*exporter, &records::batch(1), stage.suite.patience);
    backend.turn(behaviour);
    backend.forget();
    judged(stage, &backend, behaviour, |patience| stage.export(&*exporter, &records::batch(1), patience));
    backend.turn(Behaviour::Well);
    backend.requests();
    works_again(stage, begun.and(well).as_ref(), || {
        stage.export(&*exporter, &records::batch(1), stage.suite.patience)
    });
    stage.end(&*exporter);
}

/// An export that the pipeline cuts, once before anything came of it and once while the back end is silent.
pub(crate) fn dropped(stage: &Stage) {
    let Some((backend, exporter, _)) = stage.started(Behaviour::Well) else { return };
    let well = stage.export(&*exporter, &records::batch(1), stage.suite.patience);
    backend.turn(Behaviour::Silent);
    for patience in [std::time::Duration::ZERO, SHORT] {
        stage.export(&*exporter, &records::batch(2), patience);
        if stage.within(stage.suite.patience, exporter.health()).is_none() {
            stage.finding(format!("health {HANGS} after it"));
        }
    }
    backend.turn(Behaviour::Well);
    works_again(stage, well.as_ref(), || stage.export(&*exporter, &records::batch(1), stage.suite.patience));
    stage.end(&*exporter);
}

fn works_again(stage: &Stage, before: Option<&Delivery>, export: impl FnOnce() -> Option<Delivery>) {
    match export() {
        None => stage.finding(format!("the next export {HANGS}")),
        Some(after) if before.is_some_and(delivers) && !delivers(&after) => {
            stage.finding("it does not work again afterwards");
        }
        Some(_) => {}
    }
}

/// Exports to a back end that fails, and judges what is said of it.
fn judged(
    stage: &Stage,
    backend: &Backend,
    behaviour: Behaviour,
    export: impl FnOnce(std::time::Duration) -> Option<Delivery>,
) {
    let silent = behaviour == Behaviour::Silent;
    let delivery = export(if silent { SHORT } else { stage.suite.patience });
    let requests = one_request(stage, backend);
    let connections = backend.connections();
    if connections > MOST_CONNECTIONS {
        stage.finding(format!("{connections} connections for one export; trying again is the pipeline's"));
    }
    let asked = requests || connections > 0;
    let Some(delivery) = delivery else {
        if !silent {
            stage.finding(format!("the export {HANGS}"));
        }
        return;
    };
    // A page under a 200 is a yes to whoever goes by statuses.
    if asked && behaviour != Behaviour::Page && delivers(&delivery) {
        stage.finding("records are said to be delivered");
    }
    let of_records = match behaviour {
        Behaviour::Page | Behaviour::Status(400 | 404 | 413) => true,
        Behaviour::Status(status) => stage.suite.final_statuses.contains(&status),
        _ => false,
    };
    if asked && !of_records && rejects(&delivery) {
        stage.finding("records are rejected, for which they were not to blame: they would be lost");
    }
}

/// Takes the requests of one export, of which no two may be the same; whether there were any.
pub(crate) fn one_request(stage: &Stage, backend: &Backend) -> bool {
    let requests = backend.requests();
    let same = |(at, one): (usize, &http::Request<bytes::Bytes>)| {
        requests.iter().skip(at + 1).any(|other| {
            one.method() == other.method() && one.uri() == other.uri() && one.body() == other.body()
        })
    };
    if requests.iter().enumerate().any(same) {
        stage.finding("the same request is sent twice in one export; trying again is the pipeline's");
    }
    !requests.is_empty()
}
