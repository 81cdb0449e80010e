/* Spread and torn: which of two samples a loss ranks as the worse one. */
"use strict";

(function () {
  const { maths, shown } = Moving, MOST = 7;

  /* Number lines below each other, one a loss, with the two samples on each; the worse one should be on the right. */
  function ladder(stage, names) {
    const svg = d3.select(stage.part("div", "moving-chart")).append("svg").attr("role", "img");
    svg.attr("aria-label", "Three lines, one for each loss, with the places of the two samples");
    const rows = names.map((name) => {
      const row = svg.append("g");
      return {
        name, way: row.append("path").attr("class", "moving-rail"), title: row.append("text").text(name),
        spread: row.append("circle").attr("r", 6).attr("class", "moving-good"), torn: row.append("rect").attr("class", "moving-bad"),
        texts: { spread: row.append("text").attr("text-anchor", "middle"), torn: row.append("text").attr("text-anchor", "middle") },
        verdict: row.append("text").attr("text-anchor", "end").attr("class", "moving-note"),
      };
    });
    return {
      fit(losses) {
        const wide = stage.width, high = 66;
        svg.attr("width", wide).attr("height", high * rows.length).attr("viewBox", `0 0 ${wide} ${high * rows.length}`);
        rows.forEach((row, k) => {
          const { spread, torn } = losses[k], low = Math.min(spread, torn), reach = Math.max(Math.abs(spread - torn), 1e-9);
          const x = (value) => 60 + ((wide - 120) * (value - low)) / reach, y = high * k + 36;
          const isWrong = spread > torn;
          row.way.attr("d", `M20,${y}H${wide - 20}`);
          row.title.attr("x", 4).attr("y", y - 20);
          row.verdict.attr("x", wide - 4).attr("y", y - 20).text(isWrong ? "wrong order" : "right order").classed("is-wrong", isWrong);
          row.spread.attr("cx", x(spread)).attr("cy", y);
          row.torn.attr("x", x(torn) - 6).attr("y", y - 6).attr("width", 12).attr("height", 12);
          row.texts.spread.attr("x", x(spread)).attr("y", y + 22).text(`spread ${Moving.shown(spread, 2)}`);
          row.texts.torn.attr("x", x(torn)).attr("y", y + 22).text(`torn ${Moving.shown(torn, 2)}`);
        });
      },
    };
  }

  Moving.thing("spread-torn", "Two samples, and how two losses rank them", (stage) => {
    const classes = Moving.slider(stage, {
      name: "classes", label: "classes <i>K</i>", values: [2, 3, 4, 5, 7, 10, 20, 50, 100, 200, 500, 1000], value: 10, show: String,
    });
    const mu = Moving.slider(stage, {
      name: "mu", label: "<i>μ</i> of <i>Q</i>, −log", range: [0.5, 200], value: 1.5, log: true, show: (v) => shown(v, 2),
    });
    const lead = { name: "lead", range: [0, MOST], step: 0.05, show: (v) => shown(v, 2) };
    const right = Moving.slider(stage, { ...lead, name: "right", label: "lead of <em>spread</em>, which is right", value: 0.1 });
    const wrong = Moving.slider(stage, { ...lead, name: "wrong", label: "lead of <em>torn</em>, which is wrong", range: [0.05, MOST], value: 0.1 });

    const plane = Moving.chart(stage, {
      label: "The two leads, and the limit below which cross-entropy has the order wrong", height: 240, x: [0, 7.2], y: [0, 7.2], grouped: true,
      xLabel: "lead of spread (right)", yLabel: "lead of torn (wrong)", legend: [{ name: "moving-ce", text: "limit: the leads add up to log(K − 1)" }],
    });
    plane.region = plane.plot.append("path").attr("class", "moving-region");
    plane.limit = plane.line("moving-ce");
    const knob = Moving.handle(plane, {
      label: "Leads of spread and torn", at: () => [right.value, wrong.value], step: 0.05, range: [0, MOST],
      moved: ([a, b]) => {
        right.set(Moving.clamp(Math.round(20 * a) / 20, [0, MOST]));
        wrong.set(Moving.clamp(Math.round(20 * b) / 20, [0.05, MOST]));
        stage.draw();
      },
      text: () => `spread ${shown(right.value, 2)}, torn ${shown(wrong.value, 2)}`,
    });
    const scale = ladder(stage, ["0-1 loss", "cross-entropy", "Q"]);
    const numbers = Moving.table(stage, ["", "<em>spread</em>", "<em>torn</em>", "the worse one is"], [
      ["0-1 loss", "step-spread", "step-torn", "step-order"], ["cross-entropy", "ce-spread", "ce-torn", "ce-order"],
      ["<i>Q</i>, −log", "q-spread", "q-torn", "q-order"],
    ]);

    return () => {
      const K = classes.value, limit = Math.log(K - 1), samples = { spread: maths.spread(K, right.value), torn: maths.torn(K, wrong.value) };
      const ce = {}, q = {}, bound = maths.negLog();
      for (const [name, groups] of Object.entries(samples)) {
        ce[name] = maths.crossEntropy(groups).value;
        q[name] = maths.surrogate(bound, mu.value, groups).value;
      }
      const worse = (loss) => (Math.abs(loss.spread - loss.torn) < 1e-9 ? "neither" : loss.spread > loss.torn ? "spread" : "torn");
      plane.fit();
      plane.limit.attr("d", plane.path([[0, limit], [limit, 0]]));
      plane.region.attr("d", plane.path([[0, 0], [0, limit], [limit, 0]]) + "Z");
      knob.place([right.value, wrong.value]);
      scale.fit([{ spread: 0, torn: 1 }, ce, q]);
      numbers.fill({
        "step-spread": "0", "step-torn": "1", "step-order": "torn", "ce-spread": shown(ce.spread), "ce-torn": shown(ce.torn), "ce-order": worse(ce),
        "q-spread": shown(q.spread), "q-torn": shown(q.torn), "q-order": worse(q),
      });
      for (const name of ["ce-order", "q-order"]) numbers.cells[name].classList.toggle("is-wrong", numbers.cells[name].textContent !== "torn");
      const sum = right.value + wrong.value;
      stage.say(`The leads add up to ${shown(sum, 2)}, and log(K − 1) is ${shown(limit, 2)}: cross-entropy ranks `
        + `${{ torn: "the mistake as worse, as it should", spread: "the sample that is right as worse", neither: "both alike" }[worse(ce)]}. `
        + `Q ranks ${{ torn: "the mistake as worse", spread: "the sample that is right as worse", neither: "both alike" }[worse(q)]}.`);
    };
  });
})();
