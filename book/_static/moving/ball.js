/* The ball of the inner player in a toy with two weights: mistakes, cross-entropy and Q at a perturbation that is dragged. */
"use strict";

(function () {
  const { maths, shown } = Moving, R = maths.RADIUS, EDGE = [-0.36, 0.36];

  Moving.thing("ball", "The ball of the inner player, with a perturbation to drag", (stage) => {
    const best = maths.ballMaxima();
    const disc = Moving.chart(stage, {
      label: "The ball of perturbations; darker means more mistakes", x: EDGE, y: EDGE, square: true, grouped: true, ticks: [5, 5],
      xLabel: "ε₁", yLabel: "ε₂",
      legend: [{ name: "moving-ce", text: "highest cross-entropy" }, { name: "moving-log", text: "highest Q" }],
    });
    const ground = disc.plot.append("g"), rim = disc.plot.append("path").attr("class", "moving-rim");
    const hole = disc.svg.append("clipPath").attr("id", "moving-ball").append("circle");
    const halves = maths.SAMPLES.map(() => ground.append("path").attr("class", "moving-mistake").attr("clip-path", "url(#moving-ball)"));
    const arrows = { crossEntropy: disc.line("moving-ce"), q: disc.line("moving-log") };
    const heads = { crossEntropy: disc.plot.append("path").attr("class", "moving-ce-fill"), q: disc.plot.append("path").attr("class", "moving-log-fill") };
    const centre = disc.plot.append("circle").attr("r", 4).attr("class", "moving-dot");
    const note = disc.over.append("text").attr("class", "moving-note").attr("text-anchor", "middle");

    const margins = Moving.chart(stage, {
      label: "Margins of the rival of each sample; beyond 0 it is a mistake", height: 84, x: [-7, 6], y: [0, 4], ticks: [0, 0],
      xLabel: "margin F of the rival; beyond 0 the sample is a mistake", left: 12,
    });
    const side = margins.plot.append("rect").attr("class", "moving-side");
    const dots = maths.SAMPLES.map(() => margins.plot.append("circle").attr("r", 6));
    const names = { close: "4 close", safe: "8 safe", hopeless: "1 hopeless" };
    const labels = Object.values(names).map((text) => margins.over.append("text").attr("class", "moving-note").attr("text-anchor", "middle").text(text));

    let at = [0, 0];
    const inside = ([a, b]) => {
      const length = Math.hypot(a, b), factor = length > R ? R / length : 1;
      return [a * factor, b * factor];
    };
    const knob = Moving.handle(disc, {
      label: "Perturbation", at: () => at, step: 0.01, range: [-R, R], text: () => `ε is ${shown(at[0], 2)}, ${shown(at[1], 2)}`,
      moved: (wish) => {
        at = inside(wish);
        stage.draw();
      },
    });
    const go = (point) => () => {
      at = [...point];
      stage.draw();
    };
    Moving.button(stage, "No perturbation", go([0, 0]));
    Moving.button(stage, "Highest cross-entropy", go(best.crossEntropy.at));
    Moving.button(stage, "Highest Q", go(best.q.at));
    const numbers = Moving.table(stage, ["", "mistakes", "cross-entropy", "<i>Q</i>"], [
      ["here", "mistakes", "ce", "q"], ["without a perturbation", "mistakes-0", "ce-0", "q-0"],
      ["at the highest cross-entropy", "mistakes-ce", "ce-ce", "q-ce"], ["at the highest <i>Q</i>", "mistakes-q", "ce-q", "q-q"],
    ]);
    const row = (end, point) => {
      const found = maths.ball(point);
      numbers.fill({ [`mistakes${end}`]: String(found.mistakes), [`ce${end}`]: shown(found.crossEntropy), [`q${end}`]: shown(found.q) });
      return found;
    };
    row("-0", [0, 0]);
    row("-ce", best.crossEntropy.at);
    row("-q", best.q.at);

    return () => {
      disc.fit(Math.min(stage.width, 440));
      margins.fit();
      const spot = ([a, b]) => [disc.x(a), disc.y(b)], [cx, cy] = spot([0, 0]), radius = disc.x(R) - cx;
      hole.attr("cx", cx).attr("cy", cy).attr("r", radius);
      rim.attr("d", `M${cx - radius},${cy}a${radius},${radius} 0 1 0 ${2 * radius},0a${radius},${radius} 0 1 0 ${-2 * radius},0`);
      centre.attr("cx", cx).attr("cy", cy);
      maths.SAMPLES.forEach(({ z }, k) => halves[k].attr("d", half(z, disc)));
      for (const name of ["crossEntropy", "q"]) {
        const [px, py] = spot(best[name].at), angle = (Math.atan2(py - cy, px - cx) * 180) / Math.PI;
        arrows[name].attr("d", `M${cx},${cy}L${px},${py}`);
        heads[name].attr("d", "M0,0L-12,-6L-12,6Z").attr("transform", `translate(${px},${py})rotate(${angle})`);
      }
      knob.place([at[0], at[1]]);
      const found = row("", at);
      note.text(`${found.mistakes} ${found.mistakes === 1 ? "mistake" : "mistakes"}`).attr("x", disc.x(at[0])).attr("y", disc.y(at[1]) - 14);
      showMargins();
      stage.say(`At ε = (${shown(at[0], 2)}, ${shown(at[1], 2)}): ${found.mistakes} of 13 samples are mistakes, cross-entropy is `
        + `${shown(found.crossEntropy)} and Q is ${shown(found.q)}.`);
    };

    function showMargins() {
      side.attr("x", margins.left).attr("y", margins.top).attr("width", margins.x(0) - margins.left).attr("height", margins.high);
      maths.SAMPLES.forEach(({ z, kind }, k) => {
        const F = maths.rival(z, at), height = kind === "close" ? 0.6 + 0.45 * k : 1.3;
        dots[k].attr("cx", margins.x(F)).attr("cy", margins.y(height)).attr("class", F > 0 ? "moving-bad" : "moving-good");
      });
      ["close", "safe", "hopeless"].forEach((kind, k) => {
        const { z } = maths.SAMPLES.find((sample) => sample.kind === kind);
        labels[k].attr("x", Moving.clamp(margins.x(maths.rival(z, at)), [40, margins.left + margins.across - 38])).attr("y", margins.top + 14);
      });
    }

    /* Where a sample is a mistake: the half plane below <w + eps, z> = 0. */
    function half(z, chart) {
      const size = Math.hypot(...z), n = z.map((each) => each / size);
      const reach = (maths.START[0] * n[0] + maths.START[1] * n[1]), far = 2;
      const edge = (along, out) => [-(reach + out) * n[0] - along * n[1], -(reach + out) * n[1] + along * n[0]];
      return "M" + [edge(-far, 0), edge(far, 0), edge(far, far), edge(-far, far)].map(([a, b]) => `${chart.x(a)},${chart.y(b)}`).join("L") + "Z";
    }
  });
})();
