"""How reports look, on screens large and small, light and dark, and on paper; and the little that moves in them."""

STYLE = """
:root { --page: #fff; --ink: #1b1f24; --soft: #5b6570; --line: #d7dce1; --panel: #f5f7f9; --right: 0,114,178;
  --wrong: 213,94,0; --link: #00629b; }
@media (prefers-color-scheme: dark) { @media screen { :root { --page: #14171a; --ink: #e4e8ec; --soft: #9aa5b0;
  --line: #333b43; --panel: #1d2226; --right: 60,160,225; --wrong: 240,140,60; --link: #6db8ee; }
  .chart path, .chart circle, .chart .key i { filter: brightness(1.5) saturate(.85); } } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2.5rem) 4rem; max-width: 84rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.3rem; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1.05rem; }
p { max-width: 48rem; margin: .4rem 0; }
.lead, .note, figcaption, caption { color: var(--soft); overflow-wrap: anywhere; }
.note { font-size: .9rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin-top: .75rem; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; font-weight: 500; }
thead th { color: var(--soft); font-weight: 500; font-size: .87rem; vertical-align: bottom; }
td small, th small { font-weight: 400; font-size: .82rem; display: block; color: var(--soft); white-space: nowrap; }
.strong td:nth-child(2) { font-weight: 650; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.card { padding: .6rem .8rem; background: var(--panel); border-radius: 8px; }
.card b { display: block; font-size: 1.4rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .87rem; }
.bars { columns: 20rem; column-gap: 2.5rem; font-size: .9rem; }
.bar { display: grid; grid-template-columns: 8rem 1fr 2.9rem; gap: .6rem; align-items: center; break-inside: avoid;
  padding: 1px 0; }
.bar > span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar > span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 12px; background: var(--panel); border-radius: 2px; }
.track i { position: absolute; inset: 0 auto 0 0; background: rgb(var(--right)); border-radius: 2px; }
.track b { position: absolute; top: -2px; bottom: -2px; width: 3px; margin-left: -1px; background: rgb(var(--wrong)); }
.map { overflow: auto; max-height: 92vh; }
.map svg { display: block; font: 11px system-ui, sans-serif; }
.map text, .chart text { fill: var(--soft); }
.map text.in { fill: var(--ink); font-size: 10px; pointer-events: none; }
.map text.deep { fill: #fff; }
.map .hit { fill: rgb(var(--right)); }
.map .miss { fill: rgb(var(--wrong)); }
.map rect.cell:hover { stroke: var(--ink); stroke-width: 1.5; }
.map .frame { fill: var(--panel); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
  gap: 1.25rem 1.75rem; }
figure { margin: 0; min-width: 0; }
.chart figcaption { color: var(--ink); font-weight: 600; }
.chart figcaption small { color: var(--soft); font-weight: 400; }
.chart svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; touch-action: pan-y; }
.chart svg .grid { stroke: var(--line); }
.chart svg .at { stroke: var(--soft); stroke-dasharray: 3 3; }
.chart path { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .87rem; }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
.key b { font-weight: 600; font-variant-numeric: tabular-nums; }
.looks { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1.5rem 2rem; }
.look { break-inside: avoid; }
.look h4 { margin: 0 0 .35rem; font-size: .95rem; font-weight: 600; overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem; max-width: 82rem; }
.row img { display: block; width: 100%; height: auto; border-radius: 4px; }
.row figcaption, .strip figcaption { font-size: .82rem; }
.strip { display: flex; gap: .4rem; overflow-x: auto; padding-bottom: .5rem; margin-bottom: 1rem; }
.strip figure { flex: none; width: 112px; }
.strip img { display: block; width: 100%; height: auto; border-radius: 3px; margin-bottom: 3px; }
.strip .fixed { position: sticky; left: 0; background: var(--page); padding-right: .4rem; width: 120px; z-index: 1; }
@media (max-width: 620px) { .row { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .bar { grid-template-columns: 7rem 1fr 2.7rem; } h1 { font-size: 1.35rem; } .strip .fixed { width: 100px; }
  .strip figure { width: 92px; } }
@media print { body { max-width: none; font-size: 11px; padding: 0; } nav { display: none; }
  .map, .wide, .strip { overflow: visible; max-height: none; } .strip { flex-wrap: wrap; } .map svg { max-width: 100%;
  height: auto; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } .chart { break-inside: avoid; } }
"""

# The values of a chart at the step under the pointer; without scripts, its newest values.
SCRIPT = """
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg"), data = JSON.parse(chart.querySelector("script").textContent);
  const line = svg.querySelector(".at"), head = chart.querySelector("small"), shown = chart.querySelectorAll(".key b");
  const before = [head.textContent, ...Array.from(shown, b => b.textContent)], [left, right] = data.across;
  const text = x => x == null ? "–" : String(Number(x.toPrecision(4)));
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), n = data.steps.length;
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const step = data.first + (x - left) / (right - left) * (data.last - data.first);
    let k = data.steps.findIndex(s => s >= step);
    k = k < 0 ? n - 1 : k > 0 && step - data.steps[k - 1] < data.steps[k] - step ? k - 1 : k;
    const at = left + (data.steps[k] - data.first) / Math.max(data.last - data.first, 1) * (right - left);
    line.setAttribute("x1", at); line.setAttribute("x2", at); line.setAttribute("visibility", "visible");
    head.textContent = "step " + data.steps[k];
    shown.forEach((b, i) => b.textContent = text(data.values[i][k]));
  });
  svg.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    head.textContent = before[0];
    shown.forEach((b, i) => b.textContent = before[i + 1]);
  });
}
"""
