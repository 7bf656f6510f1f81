// SPDX-License-Identifier: Apache-2.0
// A back end on MQTT.js: PORT VERSION BASE REQUEST... with VERSION 5 or 4 (3.1.1). A request is JSON: `topic` and `payload`,
// and `options` as MQTT.js has them, with Correlation Data as text. It asks one after the other, each when the one before was
// answered on `reply` (below BASE), and prints every answer as a line of JSON.
"use strict";
const mqtt = require("mqtt");

const [port, version, base, ...requests] = process.argv.slice(2);
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: Number(version), reconnectPeriod: 0 });

function fail(error) {
  console.error(String(error));
  process.exit(1);
}

function answer(topic, payload, packet) {
  const { correlationData, contentType, userProperties } = packet.properties ?? {};
  const properties = { correlationData: correlationData?.toString(), contentType, userProperties };
  console.log(JSON.stringify({ topic: topic.slice(base.length), record: JSON.parse(payload), properties }));
}

async function ask({ topic, payload, reply, options = {} }) {
  const properties = { ...options.properties };
  if (properties.correlationData !== undefined) properties.correlationData = Buffer.from(properties.correlationData);
  await client.subscribeAsync(base + reply, { qos: 1 });
  const answered = new Promise((resolve) => {
    client.once("message", (...message) => resolve(answer(...message)));
  });
  await client.publishAsync(base + topic, payload, { qos: 1, ...options, properties });
  await answered;
  await client.unsubscribeAsync(base + reply);
}

async function main() {
  for (const request of requests) await ask(JSON.parse(request));
  await client.endAsync();
}

client.on("error", fail);
client.on("connect", () => main().catch(fail));
