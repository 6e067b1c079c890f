use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};

#[derive(Debug, thiserror::Error)]
pub enum WeatherError {
    #[error("there is no weather for {0}")]
    UnknownCity(String),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

#[derive(Serialize)]
struct Query<'a> {
    city: &'a str,
    days: u8,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub struct Forecast {
    pub city: String,
    pub degrees: Vec<i32>,
}

#[derive(Clone, Debug)]
pub struct Weather {
    client: Client,
    base: String,
}

impl Weather {
    pub fn new(base: &str) -> Result<Self, WeatherError> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .user_agent("weather-agent/1.0")
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(4)
            .build()?;
        Ok(Self::with_client(client, base))
    }

    pub fn with_client(client: Client, base: &str) -> Self {
        let base = base.to_owned();
        Self { client, base }
    }

    pub async fn forecast(&self, city: &str) -> Result<Forecast, WeatherError> {
        let url = format!("{}/forecast", self.base);
        let query = Query { city, days: 3 };
        let response = self.client.get(url).query(&query).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(WeatherError::UnknownCity(city.to_owned()));
        }
        Ok(response.error_for_status()?.json().await?)
    }

    pub async fn describe(&self, forecast: &Forecast) -> Result<String, WeatherError> {
        let url = format!("{}/describe", self.base);
        let request = self.client.post(url).header("x-style", "short");
        let response = request.json(forecast).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }
}
