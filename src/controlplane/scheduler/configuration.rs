//! Reads profiles from upstream's configuration file, as far as it says something here; what it asks for beyond that is
//! refused.

use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde::Deserialize;

use super::profile::{DEFAULT, Profile, Profiles, built_in};
use super::{filters, scores};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<ProfileConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfileConfiguration {
    #[serde(default)]
    scheduler_name: String,
    #[serde(default)]
    plugins: Plugins,
    #[serde(default)]
    plugin_config: Vec<PluginConfiguration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugins {
    #[serde(default)]
    multi_point: PluginSet,
    #[serde(default)]
    filter: PluginSet,
    #[serde(default)]
    score: PluginSet,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginSet {
    #[serde(default)]
    enabled: Vec<Plugin>,
    #[serde(default)]
    disabled: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    weight: Option<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "name", content = "args")]
enum PluginConfiguration {
    NodeResourcesFit(FitArguments),
    PodTopologySpread(SpreadArguments),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArguments {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    scoring_strategy: Option<Strategy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Strategy {
    #[serde(rename = "type")]
    kind: StrategyType,
}

#[derive(Deserialize)]
enum StrategyType {
    LeastAllocated,
    MostAllocated,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArguments {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<DefaultingType>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
enum DefaultingType {
    System,
    List,
}

/// Reads a KubeSchedulerConfiguration.
///
/// # Errors
///
/// What it asks for and is not to be had here.
pub(super) fn parse(text: &str) -> Result<Profiles, String> {
    let file: Configuration = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if (file.api_version.as_str(), file.kind.as_str())
        != ("kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration")
    {
        return Err("it is no KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1".to_owned());
    }
    if file.profiles.is_empty() {
        return Ok(built_in());
    }
    let mut all = Profiles::new();
    for own in file.profiles {
        let name =
            if own.scheduler_name.is_empty() { DEFAULT.to_owned() } else { own.scheduler_name.clone() };
        let profile = read(own).map_err(|why| format!("profile {name:?}: {why}"))?;
        if all.insert(name.clone(), Arc::new(profile)).is_some() {
            return Err(format!("profile {name:?} is there twice"));
        }
    }
    Ok(all)
}

fn read(own: ProfileConfiguration) -> Result<Profile, String> {
    let mut chosen = Chosen {
        filters: filters::ALL.iter().map(|(name, _)| *name).collect(),
        scores: scores::ALL.iter().map(|(name, _, weight)| (*name, *weight)).collect(),
    };
    let Plugins { multi_point, filter, score } = own.plugins;
    chosen.change(&multi_point, true, true)?;
    chosen.change(&filter, true, false)?;
    chosen.change(&score, false, true)?;
    let mut profile =
        Profile { filters: Some(chosen.filters), scores: Some(chosen.scores), ..Profile::default() };
    for arguments in own.plugin_config {
        match arguments {
            PluginConfiguration::NodeResourcesFit(fit) => {
                let kind = fit.scoring_strategy.map(|strategy| strategy.kind);
                profile.fullest = matches!(kind, Some(StrategyType::MostAllocated));
            }
            PluginConfiguration::PodTopologySpread(spread) => {
                let listed = !spread.default_constraints.is_empty();
                if listed && spread.defaulting_type == Some(DefaultingType::System) {
                    return Err("defaultConstraints need defaultingType: List".to_owned());
                }
                let list = spread.defaulting_type == Some(DefaultingType::List);
                profile.spread = list.then_some(spread.default_constraints);
            }
        }
    }
    Ok(profile)
}

/// What counts in a profile.
struct Chosen {
    filters: Vec<&'static str>,
    scores: Vec<(&'static str, f64)>,
}

impl Chosen {
    /// Takes plugins away, then adds those that are enabled.
    fn change(&mut self, set: &PluginSet, filter: bool, score: bool) -> Result<(), String> {
        let known = |name: &str| {
            let as_filter = filter.then(|| filters::ALL.iter().find(|(own, _)| *own == name)).flatten();
            let as_score = score.then(|| scores::ALL.iter().find(|(own, ..)| *own == name)).flatten();
            match (as_filter, as_score) {
                (None, None) => Err(format!("there is no plugin {name:?} at this point")),
                (as_filter, as_score) => {
                    Ok((as_filter.map(|(name, _)| *name), as_score.map(|(name, _, weight)| (*name, *weight))))
                }
            }
        };
        for plugin in &set.disabled {
            let all = plugin.name == "*";
            if !all {
                known(&plugin.name)?;
            }
            self.filters.retain(|name| !(filter && (all || *name == plugin.name)));
            self.scores.retain(|(name, _)| !(score && (all || *name == plugin.name)));
        }
        for plugin in &set.enabled {
            let (as_filter, as_score) = known(&plugin.name)?;
            if let Some(name) = as_filter.filter(|name| !self.filters.contains(name)) {
                self.filters.push(name);
            }
            if let Some((name, usual)) = as_score {
                self.scores.retain(|(own, _)| *own != name);
                self.scores.push((name, plugin.weight.filter(|weight| *weight > 0).map_or(usual, f64::from)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(profiles: &str) -> Result<Profiles, String> {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        parse(&format!("{head}{profiles}"))
    }

    #[test]
    fn profiles_are_read_from_upstream_s_file() {
        assert_eq!(file(""), Ok(built_in()));
        let two = "profiles:\n- schedulerName: default-scheduler\n- schedulerName: packed\n  pluginConfig:\n  \
                   - name: NodeResourcesFit\n    args: {scoringStrategy: {type: MostAllocated}}\n  plugins:\n    \
                   score:\n      disabled: [{name: NodeResourcesBalancedAllocation}]\n      \
                   enabled: [{name: ImageLocality, weight: 7}]\n    filter: {disabled: [{name: TaintToleration}]}\n";
        let found = file(two).expect("profiles");
        assert_eq!(found[DEFAULT].scores.as_ref().map(Vec::len), Some(scores::ALL.len()));
        let packed = &found["packed"];
        let (filters, scores) =
            (packed.filters.clone().expect("named"), packed.scores.clone().expect("named"));
        assert!(packed.fullest && !filters.contains(&"TaintToleration"));
        assert!(scores.contains(&("TaintToleration", 3.0)), "only its filter was taken away");
        assert!(scores.contains(&("ImageLocality", 7.0)));
        assert!(!scores.iter().any(|(name, _)| *name == "NodeResourcesBalancedAllocation"));
        let bare = "profiles: [{schedulerName: bare, plugins: {multiPoint: {disabled: [{name: '*'}], \
                    enabled: [{name: NodeName}]}}}]\n";
        let bare = &file(bare).expect("profiles")["bare"];
        assert_eq!((bare.filters.clone(), bare.scores.clone()), (Some(vec!["NodeName"]), Some(vec![])));
    }

    #[test]
    fn what_is_not_to_be_had_is_refused() {
        let check = |profiles: &str, expect: &str| {
            let why = file(profiles).expect_err(profiles);
            assert!(why.contains(expect), "{why}");
        };
        check("extenders: []\n", "extenders");
        check("profiles: [{plugins: {score: {enabled: [{name: Mine}]}}}]\n", "there is no plugin \"Mine\"");
        check("profiles: [{plugins: {queueSort: {}}}]\n", "queueSort");
        check("profiles: [{schedulerName: a}, {schedulerName: a}]\n", "is there twice");
        check("profiles: [{pluginConfig: [{name: NodeAffinity, args: {}}]}]\n", "NodeAffinity");
        assert!(parse("apiVersion: v1\nkind: Pod\n").is_err());
    }
}
