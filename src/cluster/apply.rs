//! Makes a cluster that is there follow a file.

use super::ClusterError;
use super::file::ClusterFile;
use super::record::ClusterRecord;
use super::spec::{ClusterSpec, NodeSpec, SpecError};
use config::Role;

/// Takes over what a file says into a specification that is in use: nodes, their settings and the host ports. Nodes keep
/// their numbers; the ones too many are those with the highest. Fails when the file asks for what cannot be changed.
pub fn follow(record: &mut ClusterRecord, file: &ClusterFile) -> Result<(), ClusterError> {
    follow_spec(&mut record.spec, file)?;
    record.carried = file.carried.clone();
    Ok(())
}

fn follow_spec(spec: &mut ClusterSpec, file: &ClusterFile) -> Result<(), ClusterError> {
    let wanted = &file.spec;
    let fixed = |what: &str| {
        ClusterError::Spec(SpecError::Node(format!("{what} of a cluster cannot be changed: make it anew")))
    };
    if wanted.image.is_some() && wanted.image != spec.image {
        return Err(fixed("the image"));
    }
    if wanted.api_port.is_some() && wanted.api_port != spec.api_port {
        return Err(fixed("the API's port"));
    }
    if wanted.api_address.is_some() && wanted.api_address != spec.api_address {
        return Err(fixed("the API's address"));
    }
    if wanted.addresses != spec.addresses && !wanted.addresses.is_default() {
        return Err(fixed("addresses"));
    }
    if wanted.brought != spec.brought {
        return Err(fixed("who brings the network"));
    }
    if wanted.datastore != spec.datastore {
        return Err(fixed("the datastore"));
    }
    spec.several |= wanted.several;
    let mut nodes = follow_nodes(spec, wanted, Role::Server)?;
    nodes.extend(follow_nodes(spec, wanted, Role::Agent)?);
    nodes.sort_by_key(|node| node.number);
    spec.nodes = nodes;
    spec.ports = wanted.ports.clone();
    spec.host_aliases = wanted.host_aliases.clone();
    spec.registries = wanted.registries.clone();
    spec.disabled = wanted.disabled.clone();
    spec.arguments = wanted.arguments.clone();
    spec.tls_sans = wanted.tls_sans.clone();
    Ok(())
}

/// The nodes of a role as the file wants them. Those that were deleted left gaps: what the file says of the n-th one is for the
/// n-th there is.
fn follow_nodes(spec: &ClusterSpec, wanted: &ClusterSpec, role: Role) -> Result<Vec<NodeSpec>, SpecError> {
    let of = |spec: &ClusterSpec| -> Vec<NodeSpec> {
        spec.nodes.iter().filter(|node| node.role() == role).cloned().collect()
    };
    let wanted = of(wanted);
    let mut numbers: Vec<u32> = of(spec).iter().map(|node| node.number).take(wanted.len()).collect();
    let more = u32::try_from(wanted.len() - numbers.len()).unwrap_or(u32::MAX);
    let mut kept = spec.clone();
    kept.nodes.retain(|node| node.role() != role || numbers.contains(&node.number));
    numbers.extend(kept.free_numbers(role, more)?);
    let follow = |(number, node): (u32, NodeSpec)| NodeSpec { number, ..node };
    Ok(numbers.into_iter().zip(wanted).map(follow).collect())
}

#[cfg(test)]
mod tests {
    use super::super::file::{Surroundings, parse};
    use super::*;

    fn file(body: &str) -> ClusterFile {
        let around = Surroundings { dir: std::path::Path::new("."), name: "t", get: &|_| None };
        parse(&format!("apiVersion: minik.dev/v1alpha1\nkind: Cluster\n{body}"), &around).expect("good")
    }

    fn after(nodes: u32, without: &[u32], body: &str) -> Result<Vec<u32>, String> {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), nodes).expect("good");
        spec.nodes.retain(|node| !without.contains(&node.number));
        follow_spec(&mut spec, &file(body)).map_err(|error| error.to_string())?;
        spec.validate().expect("valid");
        Ok(spec.nodes.iter().map(|node| node.number).collect())
    }

    #[test]
    fn nodes_come_and_go_and_keep_their_numbers() {
        assert_eq!(after(1, &[], "agents: {count: 2}"), Ok(vec![0, 1, 2]));
        assert_eq!(after(3, &[], "agents: {count: 1}"), Ok(vec![0, 1]));
        assert_eq!(after(4, &[1], "agents: {count: 2}"), Ok(vec![0, 2, 3]));
        assert_eq!(after(4, &[1], "agents: {count: 3}"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(after(3, &[], ""), Ok(vec![0]));
    }

    #[test]
    fn servers_come_and_go() {
        let after = |servers: u32, body: &str| {
            let mut spec = ClusterSpec::with_servers("t".parse().expect("good name"), servers + 1, servers)
                .expect("good");
            follow_spec(&mut spec, &file(body)).map_err(|error| error.to_string())?;
            spec.validate().expect("valid");
            Ok::<_, String>(spec.nodes.iter().map(|node| node.number).collect::<Vec<_>>())
        };
        assert_eq!(after(3, "server: {count: 5}\nagents: {count: 1}"), Ok(vec![0, 1, 100, 101, 102, 103]));
        assert_eq!(after(3, "agents: {count: 2}"), Ok(vec![0, 1, 2]));
        assert_eq!(after(1, "server: {count: 3}"), Ok(vec![0, 100, 101]));
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        assert!(after(1, &[], "apiPort: 7000").expect_err("refused").contains("make it anew"));
        assert!(after(1, &[], "image: other").expect_err("refused").contains("the image"));
    }
}
