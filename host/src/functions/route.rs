//! From a name to what runs: one version, or two that share the requests.

use std::sync::Arc;

use shardmill_core::Scope;
use shardmill_core::mapping::Weight;

use super::Functions;
use super::error::FunctionError;
use super::model::{Alias, Function, LATEST, Loaded, Second};
use super::reference::{FunctionRef, Qualifier};

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Route {
    /// What is named, with its state: another one after every change that matters.
    pub stamp: String,
    /// The version.
    pub first: Arc<Function>,
    /// The second one, with its share of the requests.
    pub second: Option<(Arc<Function>, Weight)>,
}

impl Route {
    /// The numbers of the versions.
    pub fn numbers(&self) -> Vec<u64> {
        let second = self.second.as_ref().map(|(second, _)| second.number());
        [Some(self.first.number()), second]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The same, with only one of its versions, if it is one of them.
    fn only(&self, number: u64) -> Option<Self> {
        let second = self.second.as_ref().map(|(second, _)| second);
        let found = [Some(&self.first), second].into_iter().flatten();
        let first = found.into_iter().find(|f| f.number() == number)?;
        Some(Self {
            stamp: self.stamp.clone(),
            first: Arc::clone(first),
            second: None,
        })
    }
}

/// Versions that are ready to run, one of which takes a batch.
pub struct Ready {
    /// The first.
    pub first: Arc<Loaded>,
    /// The second, with its share of the requests.
    pub second: Option<(Arc<Loaded>, Weight)>,
}

impl Ready {
    /// The version that takes a request.
    pub fn choose(&self, request_id: &str) -> &Arc<Loaded> {
        match &self.second {
            Some((second, weight)) if weight.takes(request_id) => second,
            _ => &self.first,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Loaded> {
        let second = self.second.as_ref().map(|(second, _)| second.as_ref());
        [Some(self.first.as_ref()), second].into_iter().flatten()
    }

    /// The number of the version that shares requests with this one.
    pub fn beside(&self, version: u64) -> Option<u64> {
        let (second, _) = self.second.as_ref()?;
        let numbers = [self.first.function.number(), second.function.number()];
        numbers.into_iter().find(|n| *n != version)
    }

    /// Whether a batch may have to go out as Lambda's JSON event.
    pub fn takes_json(&self) -> bool {
        self.all().any(|loaded| loaded.carrier().takes_json())
    }

    /// Bytes of a packed batch that every version takes that is given one.
    pub fn batch_bytes(&self) -> usize {
        let packed = self.all().filter(|loaded| !loaded.carrier().takes_json());
        let bytes = packed.map(|loaded| loaded.function.settings.limits.batch_bytes);
        bytes.min().unwrap_or(usize::MAX)
    }
}

impl Functions {
    /// What a name stands for now.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn route(&self, scope: &Scope, named: &FunctionRef) -> Result<Arc<Route>, FunctionError> {
        let id = (scope.clone(), named.name.clone(), named.qualifier.clone());
        let changes = {
            let mut cache = self.cache();
            if let Some(route) = cache.route(&id) {
                return Ok(route);
            }
            cache.changes()
        };
        let route = Arc::new(self.find_route(scope, named)?);
        self.cache().keep_route(id, &route, changes);
        Ok(route)
    }

    fn find_route(&self, scope: &Scope, named: &FunctionRef) -> Result<Route, FunctionError> {
        let name = named.name.as_str();
        let only = |stamp: String, function| Route {
            stamp,
            first: Arc::new(function),
            second: None,
        };
        match &named.qualifier {
            None | Some(Qualifier::Latest) => {
                let latest = self.describe(scope, name)?;
                let stamp = format!("{LATEST}@{}.{}", latest.update, latest.last_modified.0);
                Ok(only(stamp, latest))
            }
            Some(Qualifier::Version(number)) => {
                let version = self.version(scope, name, *number)?;
                Ok(only(number.to_string(), version))
            }
            Some(Qualifier::Alias(alias)) => {
                let alias = self.alias(scope, name, alias)?;
                self.route_of(scope, name, &alias)
            }
        }
    }

    fn route_of(&self, scope: &Scope, name: &str, alias: &Alias) -> Result<Route, FunctionError> {
        let first = self.version_or_latest(scope, name, alias.version)?;
        let mut stamp = format!(
            "{}@{}.{}",
            alias.name, alias.revision, alias.last_modified.0
        );
        if alias.version == 0 {
            stamp = format!("{stamp}.{}", first.update);
        }
        let (mut first, mut second) = (Arc::new(first), None);
        if let Some(Second { version, weight }) = alias.second {
            let other = Arc::new(self.version(scope, name, version)?);
            // A share of nothing, or of all, is no share.
            match f64::from(weight) {
                0.0 => {}
                1.0 => first = other,
                _ => second = Some((other, weight)),
            }
        }
        Ok(Route {
            stamp,
            first,
            second,
        })
    }

    /// A version; 0 is `$LATEST`.
    pub(super) fn version_or_latest(
        &self,
        scope: &Scope,
        name: &str,
        version: u64,
    ) -> Result<Function, FunctionError> {
        match version {
            0 => self.describe(scope, name),
            version => self.version(scope, name, version),
        }
    }

    /// The same route with only this version, whether or not it is on it.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub fn back_to(
        &self,
        scope: &Scope,
        route: &Route,
        version: u64,
    ) -> Result<Route, FunctionError> {
        if let Some(route) = route.only(version) {
            return Ok(route);
        }
        let first = self.version(scope, &route.first.name, version)?;
        Ok(Route {
            stamp: route.stamp.clone(),
            first: Arc::new(first),
            second: None,
        })
    }

    /// Makes what is on a route ready to run.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn ready(&self, scope: &Scope, route: &Route) -> Result<Ready, FunctionError> {
        let first = self.load(scope, &route.first).await?;
        let second = match &route.second {
            None => None,
            Some((second, weight)) => Some((self.load(scope, second).await?, *weight)),
        };
        Ok(Ready { first, second })
    }

    /// The version of what is named that takes a request, ready to run.
    ///
    /// # Errors
    /// See [`FunctionError`].
    pub async fn choose(
        &self,
        scope: &Scope,
        named: &FunctionRef,
        request_id: &str,
    ) -> Result<Arc<Loaded>, FunctionError> {
        let route = self.route(scope, named)?;
        let chosen = match &route.second {
            Some((second, weight)) if weight.takes(request_id) => second,
            _ => &route.first,
        };
        self.load(scope, chosen).await
    }
}
