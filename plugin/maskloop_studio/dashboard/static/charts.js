// Charts of the figures in data-chart; tables beside them hold the same numbers.
"use strict";
(() => {
  const drawn = new Set();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => (value == null ? "–" : Math.abs(value) >= 1000 ? value.toFixed(0) : String(+value.toFixed(3)));

  function columns(chart) {
    const x = chart.kind === "day" ? chart.x.map((day) => Date.parse(day + "T00:00:00Z") / 1000) : chart.x;
    const rows = chart.series.map((one) => one.values.map((value) => (value == null ? null : value)));
    if (chart.kind === "stack") {
      for (let row = 1; row < rows.length; row++) rows[row] = rows[row].map((value, at) => value + rows[row - 1][at]);
    }
    return [x, ...rows];
  }

  function intervals(chart) {
    // Vertical bars from the low to the high bound of a series.
    return (plot) => {
      chart.series.forEach((one, index) => {
        if (!one.low || !plot.series[index + 1].show) return;
        const context = plot.ctx;
        context.save();
        context.strokeStyle = css("--s" + (index % 8));
        context.lineWidth = 2 * devicePixelRatio;
        context.globalAlpha = 0.55;
        chart.x.forEach((at, place) => {
          if (one.low[place] == null || one.high[place] == null) return;
          const across = plot.valToPos(at, "x", true);
          context.beginPath();
          context.moveTo(across, plot.valToPos(one.low[place], "y", true));
          context.lineTo(across, plot.valToPos(one.high[place], "y", true));
          context.stroke();
        });
        context.restore();
      });
    };
  }

  function options(chart, width) {
    const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid") } };
    const names = chart.names;
    const whole = chart.kind !== "day";
    const bounds = chart.series.flatMap((one) => [...(one.low || []), ...(one.high || [])]).filter((value) => value != null);
    const stacked = chart.kind === "stack" || chart.kind === "day";
    return {
      width,
      height: 230,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: { time: !whole, range: (_, low, high) => (low === high ? [low - (whole ? 1 : 86400), high + (whole ? 1 : 86400)] : [low - (high - low) * 0.03, high + (high - low) * 0.03]) },
        y: {
          range: (_, low, high) => {
            const least = Math.min(low ?? 0, ...bounds), most = Math.max(high ?? 1, ...bounds);
            const room = (most - least || 1) * 0.08;
            return stacked ? [0, (most || 1) * 1.05] : [least - room, most + room];
          },
        },
      },
      legend: { live: true },
      cursor: { points: { size: 7 } },
      series: [
        { label: chart.kind === "step" ? "step" : chart.kind === "day" ? "day" : "version", value: (plot, raw) => (raw == null ? "–" : chart.kind === "day" ? new Date(raw * 1000).toISOString().slice(0, 10) : names ? names[Math.round(raw) - 1] : String(raw)) },
        ...chart.series.map((one, index) => ({
          label: one.label,
          stroke: css("--s" + (index % 8)),
          width: index === 0 ? 2.5 : 1.5,
          dash: index > 0 && chart.kind === "version" ? [[6, 3], [2, 3], [8, 3, 2, 3]][index % 3] : undefined,
          points: { show: chart.x.length <= 60, size: 6, fill: css("--s" + (index % 8)) },
          spanGaps: true,
          paths: stacked && uPlot.paths.bars ? uPlot.paths.bars({ size: [0.7, 60] }) : undefined,
          fill: stacked ? css("--s" + (index % 8)) : undefined,
          value: (plot, raw, series, at) => short(at == null ? null : one.values[at]),
        })),
      ],
      axes: [{ ...axis, values: whole ? (plot, splits) => splits.map((split) => (Number.isInteger(split) ? (names ? (names[split - 1] || "").replace(/^.*-v/, "v") : String(split)) : "")) : undefined }, axis],
      hooks: { draw: [intervals(chart)] },
    };
  }

  function draw(figure) {
    if (typeof uPlot === "undefined") return;
    const chart = JSON.parse(figure.dataset.chart);
    const place = figure.querySelector(".plot");
    place.replaceChildren();
    if (!chart.x.length) return;
    let data = columns(chart);
    const settings = options(chart, place.clientWidth || 320);
    if (chart.kind === "stack") {  // the largest sum is drawn first, so that smaller ones lie in front of it
      data = [data[0], ...data.slice(1).reverse()];
      settings.series = [settings.series[0], ...settings.series.slice(1).reverse()];
    }
    new uPlot(settings, data, place);
    drawn.add(figure);
  }

  const drawAll = (root) => root.querySelectorAll("figure[data-chart]").forEach(draw);
  const again = () => drawn.forEach((figure) => (figure.isConnected ? draw(figure) : drawn.delete(figure)));
  document.addEventListener("DOMContentLoaded", () => drawAll(document));
  document.addEventListener("htmx:afterSettle", (event) => {
    const root = event.detail.elt;
    if (root && root.querySelectorAll) drawAll(root);
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(again, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
})();
