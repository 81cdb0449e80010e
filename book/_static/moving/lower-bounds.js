/* The two lower bounds: phi, Q and the pull by the margin of the leading rival. */
"use strict";

(function () {
  const { maths, shown } = Moving, NEAR = [-8, 8];

  Moving.thing("lower-bounds", "The lower bounds, with their knobs", (stage) => {
    const phi = Moving.choice(stage, {
      label: "bound", options: { log: "−log", tanh: "tanh" }, value: "log",
      changed: (name) => mu.set(name === "log" ? 1.5 : 10), // as published
    });
    const gamma = Moving.slider(stage, { name: "gamma", label: "shift <i>γ</i>", range: [maths.GAMMA, 5], value: maths.GAMMA });
    const alpha = Moving.slider(stage, { name: "alpha", label: "slope <i>α</i>", range: [0.05, 5], value: 0.1, log: true });
    const mu = Moving.slider(stage, { name: "mu", label: "inverse temperature <i>μ</i>", range: [0.1, 100], value: 1.5, log: true, show: (v) => shown(v, 2) });
    const classes = Moving.slider(stage, {
      name: "classes", label: "classes <i>K</i>", values: [2, 3, 4, 5, 7, 10, 20, 50, 100, 200, 500, 1000], value: 2, show: String,
    });
    const others = Moving.slider(stage, { name: "others", label: "margin of the other rivals", range: [-8, 0], value: -4, show: (v) => shown(v, 1) });

    const bounds = Moving.chart(stage, {
      label: "The step, the bound phi and Q, by the margin of the leading rival", height: 220, x: NEAR, y: [-3.2, 1.4],
      xLabel: "margin F of the leading rival", yLabel: "value", grouped: true,
      legend: [{ name: "moving-ink", text: "0-1 loss" }, { name: "moving-phi", text: "φ(F)" }, { name: "moving-q", text: "Q" }],
    });
    const pulls = Moving.chart(stage, {
      label: "Pull of the leading rival under cross-entropy and Q, and the slope of phi", height: 180, x: NEAR, y: [0, 1.05],
      xLabel: "margin F of the leading rival", yLabel: "pull of the leading rival",
      legend: [{ name: "moving-ce", text: "cross-entropy" }, { name: "moving-q", text: "Q" }, { name: "moving-phi", text: "slope of φ" }],
    });
    for (const chart of [bounds, pulls]) chart.side = chart.plot.append("rect").attr("class", "moving-side");
    bounds.step = bounds.line("moving-ink");
    bounds.phi = bounds.line("moving-phi");
    bounds.q = bounds.line("moving-q");
    pulls.ce = pulls.line("moving-ce");
    pulls.phi = pulls.line("moving-phi");
    pulls.q = pulls.line("moving-q");
    for (const chart of [bounds, pulls]) chart.here = chart.plot.append("path").attr("class", "moving-here");
    const words = ["right", "misclassified"].map((text) => bounds.over.append("text").attr("class", "moving-note").text(text));

    let margin = 1;
    const knob = Moving.handle(bounds, {
      label: "Margin of the leading rival", at: () => [margin, 0], step: 0.1, range: NEAR, flat: true,
      moved: ([x]) => {
        margin = Math.round(100 * Moving.clamp(x, NEAR)) / 100;
        stage.draw();
      },
      text: () => shown(margin, 2),
    });
    const numbers = Moving.table(stage, ["at this margin", "value", "pull"], [
      ["0-1 loss", "step", "step-pull"], ["cross-entropy", "ce", "ce-pull"], ["<i>φ</i>, and its slope", "phi", "phi-pull"], ["<i>Q</i>", "q", "q-pull"],
    ]);

    return () => {
      const bound = phi.value === "log" ? maths.negLog(gamma.value) : maths.tanh(alpha.value);
      gamma.frame.hidden = phi.value !== "log";
      alpha.frame.hidden = phi.value === "log";
      others.frame.hidden = classes.value === 2;
      const groups = (F) => [{ margin: 0, count: 1 }, { margin: F, count: 1 }, { margin: others.value, count: classes.value - 2 }];
      const q = (F) => maths.surrogate(bound, mu.value, groups(F)), ce = (F) => maths.crossEntropy(groups(F));
      pulls.y.domain([0, 1.05 * Math.max(1, phi.value === "log" ? 1 : alpha.value)]);
      stage.live.dataset.phi = phi.value;
      bounds.fit();
      pulls.fit();
      const grid = Array.from({ length: 321 }, (_, k) => NEAR[0] + (k * (NEAR[1] - NEAR[0])) / 320);
      bounds.step.attr("d", bounds.path([[NEAR[0], 0], [0, 0]]) + bounds.path([[0, 1], [NEAR[1], 1]]));
      bounds.phi.attr("d", bounds.path(grid.map((F) => [F, bound.value(F)])));
      bounds.q.attr("d", bounds.path(grid.map((F) => [F, q(F).value])));
      pulls.ce.attr("d", pulls.path(grid.map((F) => [F, ce(F).pulls[1]])));
      pulls.phi.attr("d", pulls.path(grid.map((F) => [F, bound.slope(F)])));
      pulls.q.attr("d", pulls.path(grid.map((F) => [F, q(F).pulls[1]])));
      for (const chart of [bounds, pulls]) {
        chart.side.attr("x", chart.left).attr("y", chart.top).attr("width", chart.x(0) - chart.left).attr("height", chart.high);
        chart.here.attr("d", `M${chart.x(margin)},${chart.top}v${chart.high}`);
      }
      words[0].attr("x", bounds.x(0) - 6).attr("y", bounds.top + 13).attr("text-anchor", "end");
      words[1].attr("x", bounds.x(0) + 6).attr("y", bounds.top + 13);
      const here = q(margin), there = ce(margin);
      knob.place([margin, here.value], [margin, Moving.clamp(here.value, bounds.y.domain())]);
      numbers.fill({
        step: String(+(margin > 0)), "step-pull": "0", ce: shown(there.value), "ce-pull": shown(there.pulls[1]),
        phi: shown(bound.value(margin)), "phi-pull": shown(bound.slope(margin)), q: shown(here.value), "q-pull": shown(here.pulls[1]),
      });
      stage.say(`Margin ${shown(margin, 2)}: the pull is ${shown(here.pulls[1])} under Q and ${shown(there.pulls[1])} under cross-entropy; `
        + `Q is ${shown(here.value)} and the 0-1 loss ${+(margin > 0)}.`);
    };
  });
})();
