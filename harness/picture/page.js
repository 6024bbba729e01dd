// Draws one run in panels that share one time axis: a lane for each replica, requests, rates, requests in flight, CPU and memory.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const INK = "#1f2430", QUIET = "#8a919c", FAULT = "#c53030", HEAL = "#2f855a", VIOLATION = "#b83280";
const PALETTE = ["#2b5fb3", "#d97706", "#2f855a", "#7c3aed", "#0e7490", "#be185d", "#65a30d", "#78350f", "#475569", "#a16207"];
const OUTCOMES = {
  ok: "#3b82c4", shed: "#d69e2e", left: "#a0a8b4", rejected: "#718096", refused: "#e53e3e", error: "#c53030", truncated: "#9b2c6f", timed_out: "#6b21a8", wrong: "#111111",
};
const LANE = 26, LEFT = 110, RIGHT = 24;
const colorOf = Object.fromEntries(data.replicas.map((name, i) => [name, PALETTE[i % PALETTE.length]]));
const seconds = (value) => (value === null || value === undefined ? "–" : value.toFixed(value < 1 ? 3 : 2) + " s");
const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

// ---------------------------------------------------------------- panels, from top to bottom
const panels = [];
const panel = (title, height, axis = {}) => {
  panels.push({ title, height, axis });
  return panels.length - 1;
};
const lanes = panel("", LANE * data.replicas.length, {
  type: "category", data: data.replicas, inverse: true, axisLabel: { color: INK }, splitLine: { show: false },
});
const requests = panel("latency, s", 150, { min: 0 });
const rates = panel("requests/s", 90, { min: 0 });
const flight = panel("in flight", 90, { min: 0 });
const cores = panel("cores busy", 80, { min: 0 });
const memory = panel("memory, MiB", 80, { min: 0 });
const gpu = data.usage.some((u) => u.gpu.some(([, mib]) => mib > 0)) ? panel("GPU memory, MiB", 80, { min: 0 }) : null;

let top = 70;
const grid = panels.map(({ height }) => {
  const one = { left: LEFT, right: RIGHT, top, height };
  top += height + 30;
  return one;
});
const box = document.getElementById("picture");
box.style.height = `${top + 44}px`;

const xAxis = panels.map((_, i) => ({
  gridIndex: i, type: "value", min: data.begin_s, max: data.end_s,
  axisLabel: { show: i === panels.length - 1, formatter: (v) => `${+v.toFixed(3)} s` },
  axisTick: { show: i === panels.length - 1 }, splitLine: { lineStyle: { color: "#eef0f3" } },
  axisPointer: { show: true, snap: false, label: { show: false }, lineStyle: { color: "#c3c8d0" } },
}));
const yAxis = panels.map(({ title, axis }, i) => ({
  gridIndex: i, type: "value", name: title, nameLocation: "middle", nameGap: 58, nameTextStyle: { color: QUIET },
  splitNumber: 3, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: QUIET }, splitLine: { lineStyle: { color: "#eef0f3" } }, ...axis,
}));

// ---------------------------------------------------------------- marks in all panels: faults, heal, phases
const marks = [
  ...(data.heal_s === null ? [] : [{ at: data.heal_s, color: HEAL, type: "dashed", name: "healed", more: "dead replicas have been started again" }]),
  ...data.events.map((e) => ({ at: e.at_s, color: QUIET, type: "dotted", name: e.step, more: e.proof })),
  ...data.faults.map((f) => ({ at: f.at_s, color: FAULT, type: "solid", name: f.step, label: String(f.number), more: f.proof })),
];
const markLine = (labels) => ({
  silent: !labels, symbol: "none", animation: false, emphasis: { disabled: true },
  data: marks.map((m) => ({
    xAxis: m.at, name: m.name, more: m.more, lineStyle: { color: m.color, type: m.type, width: 1.4 },
    label: { show: labels && Boolean(m.label), formatter: m.label || "", position: "start", rotate: 0, distance: 3, color: "#fff", backgroundColor: m.color, padding: [2, 5], borderRadius: 8, fontSize: 11, lineHeight: 12 },
  })),
  tooltip: { formatter: (p) => `<b>${escape(p.name)}</b> at ${seconds(p.value)}<br>${escape(p.data.more || "")}` },
});
const phases = data.phases.map(([name, from, to], i) => [
  {
    xAxis: from, itemStyle: { color: i % 2 ? "rgba(100,116,139,.10)" : "rgba(100,116,139,.03)" },
    label: { show: to - from > (data.end_s - data.begin_s) / 30, formatter: name, color: QUIET, position: "top", distance: 22 },
  },
  { xAxis: to },
]);
const anchor = (i, more = {}) => ({
  type: "line", xAxisIndex: i, yAxisIndex: i, data: [], silent: true, markLine: markLine(i === lanes), animation: false, ...more,
});

// ---------------------------------------------------------------- lanes
const lane = (params, api) => {
  const from = api.coord([api.value(1), api.value(0)]), to = api.coord([api.value(2), api.value(0)]);
  const kind = api.value(3), color = colorOf[data.replicas[api.value(0)]];
  const area = params.coordSys;
  const x = Math.max(from[0], area.x), width = Math.min(to[0], area.x + area.width) - x;
  if (width < 0) return null;
  return {
    type: "rect", shape: { x, y: from[1] - 8, width: Math.max(width, 1.5), height: 16, r: 2 },
    style: { fill: kind === "stalled" ? "#4b5563" : color, opacity: kind === "starting" ? 0.28 : 1, stroke: color, lineWidth: 0.5 },
  };
};
const series = [
  {
    name: "lives", type: "custom", xAxisIndex: lanes, yAxisIndex: lanes, renderItem: lane, encode: { x: [1, 2], y: 0 }, data: data.lives,
    clip: true, animation: false,
    tooltip: {
      formatter: ({ value: [i, from, to, kind, number, how] }) =>
        `<b>${escape(data.replicas[i])}</b>, incarnation ${escape(number)}: ${escape(kind)}<br>${seconds(from)} to ${seconds(to)}${how ? `, ${escape(how)}` : ""}`,
    },
  },
  anchor(lanes, { silent: false, markArea: { silent: true, data: phases } }),
  {
    name: "violations", type: "scatter", xAxisIndex: requests, yAxisIndex: requests, symbol: "triangle", symbolSize: 9, z: 6,
    itemStyle: { color: VIOLATION, opacity: 1 }, animation: false,
    data: data.violations.map((v) => ({ value: [v.at_s, 0], v })), clip: false,
    tooltip: { formatter: ({ data: { v } }) => `<b>${escape(v.signature)}</b> at ${seconds(v.at_s)}<br>${escape(v.seen)}` },
  },
];

// ---------------------------------------------------------------- requests
for (const [outcome, points] of Object.entries(data.requests)) {
  series.push({
    name: outcome, type: "scatter", xAxisIndex: requests, yAxisIndex: requests, data: points, symbolSize: points.length > 5000 ? 2.5 : 5,
    large: points.length > 5000, itemStyle: { color: OUTCOMES[outcome] || INK, opacity: outcome === "ok" ? 0.55 : 0.95 }, animation: false,
    z: outcome === "ok" ? 2 : 4,
    tooltip: {
      formatter: ({ value: [sent, latency, number, first, detail] }) =>
        `request ${escape(number)}: <b>${escape(outcome)}</b> ${escape(data.details[detail])}<br>sent ${seconds(sent)}, first token after ${seconds(first)}, ` +
        `ended after ${seconds(latency)}`,
    },
  });
}
series.push(anchor(requests));

// ---------------------------------------------------------------- lines
const line = (i, name, points, color, more = {}) =>
  series.push({
    name, type: "line", xAxisIndex: i, yAxisIndex: i, data: points, showSymbol: false, symbolSize: 5, lineStyle: { width: 1.5, color },
    itemStyle: { color }, animation: false, sampling: "minmax", tooltip: { formatter: ({ value }) => `${escape(name)}: ${value[1]} at ${seconds(value[0])}` },
    triggerLineEvent: true, ...more,
  });
line(rates, "right", data.rates.ok, OUTCOMES.ok, { step: "end", areaStyle: { opacity: 0.15 } });
line(rates, "failed", data.rates.bad, OUTCOMES.error, { step: "end", areaStyle: { opacity: 0.25 } });
line(flight, "in flight, of the clients", data.in_flight, "#475569", { step: "end" });
if (data.waiting.length) line(flight, "waiting, in the graph", data.waiting, "#d97706", { showSymbol: true });
for (const u of data.usage) {
  line(cores, u.replica, u.cores, colorOf[u.replica], { showSymbol: u.cores.length < 40 });
  line(memory, u.replica, u.rss, colorOf[u.replica], { showSymbol: u.rss.length < 40 });
  if (gpu !== null) line(gpu, u.replica, u.gpu, colorOf[u.replica], { showSymbol: u.gpu.length < 40 });
}
for (const i of [rates, flight, cores, memory, gpu]) if (i !== null) series.push(anchor(i));

const chart = echarts.init(box);
chart.on("finished", () => { document.body.dataset.drawn = "yes"; });
chart.setOption({
  animation: false, grid, xAxis, yAxis, series,
  axisPointer: { link: [{ xAxisIndex: "all" }] },
  tooltip: { trigger: "item", confine: true, textStyle: { fontSize: 12 } },
  legend: { data: [...Object.keys(data.requests), ...(data.violations.length ? ["violations"] : [])], top: 0, itemWidth: 12, itemHeight: 9 },
  dataZoom: [
    { type: "inside", xAxisIndex: panels.map((_, i) => i), filterMode: "none" },
    { type: "slider", xAxisIndex: panels.map((_, i) => i), filterMode: "none", bottom: 4, height: 22, labelFormatter: (v) => `${v.toFixed(2)} s` },
  ],
});
addEventListener("resize", () => chart.resize());
})();
