//! How curves look: colours that the colour-blind can tell apart (Okabe and Ito), with a mark of its own for each.

use super::canvas::{Area, FINE, px, wrong};
use crate::error::Failure;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Shape of the points of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A disc.
    Disc,
    /// A triangle.
    Triangle,
    /// A square.
    Square,
    /// A cross.
    Cross,
    /// A circle that is empty.
    Ring,
    /// A diamond.
    Diamond,
}

/// Look of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Colour of its line and marks.
    pub colour: RGBColor,
    /// Shape of its points.
    pub mark: Mark,
    /// Whether its line is broken.
    pub dashed: bool,
}

const GREY: RGBColor = RGBColor(0x55, 0x5f, 0x6a);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const RED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
const AMBER: RGBColor = RGBColor(0xe6, 0x9f, 0x00);

/// Looks by order, for what has no colour of its own.
const OTHERS: [(RGBColor, Mark); 4] =
    [(SKY, Mark::Diamond), (AMBER, Mark::Ring), (PURPLE, Mark::Cross), (GREEN, Mark::Square)];

/// Returns the look of a transport; `variant` counts its congestion controls.
pub fn of_transport(transport: &str, order: usize, variant: usize) -> Style {
    let (colour, mark) = match transport {
        "plain" => (GREY, Mark::Ring),
        "udp" => (BLUE, Mark::Disc),
        "tcp" => (RED, Mark::Triangle),
        "tls" => (GREEN, Mark::Square),
        "openvpn-tcp" => (PURPLE, Mark::Cross),
        "libreswan" => (AMBER, Mark::Diamond),
        _ => OTHERS[order % OTHERS.len()],
    };
    Style { colour, mark, dashed: variant % 2 == 1 }
}

/// Returns the look of a call: alone, or beside bulk without and with flow queues.
pub fn of_call(beside_bulk: bool, flow_queue: bool) -> Style {
    match (beside_bulk, flow_queue) {
        (false, _) => Style { colour: GREY, mark: Mark::Ring, dashed: true },
        (true, false) => Style { colour: RED, mark: Mark::Triangle, dashed: false },
        (true, true) => Style { colour: BLUE, mark: Mark::Disc, dashed: false },
    }
}

/// Returns looks of a first, second, … thing.
pub fn by_order(order: usize) -> Style {
    let looks = [(BLUE, Mark::Disc), (RED, Mark::Triangle), (GREEN, Mark::Square), (PURPLE, Mark::Cross)];
    let (colour, mark) = looks[order % looks.len()];
    Style { colour, mark, dashed: order >= looks.len() }
}

impl Style {
    /// Returns the stroke of lines of this width, in units.
    pub fn stroke(&self, width: f64) -> ShapeStyle {
        self.colour.stroke_width((width * f64::from(FINE)) as u32)
    }

    /// Draws the mark at a pixel.
    pub fn draw_mark(&self, area: &Area<'_>, (x, y): (i32, i32)) -> Result<(), Failure> {
        let (size, filled) = (px(4), self.colour.filled());
        let line = self.stroke(2.0);
        match self.mark {
            Mark::Disc => area.draw(&Circle::new((x, y), size, filled)),
            Mark::Ring => {
                area.draw(&Circle::new((x, y), size, WHITE.filled())).map_err(wrong)?;
                area.draw(&Circle::new((x, y), size, line))
            }
            Mark::Triangle => area.draw(&TriangleMarker::new((x, y), size * 5 / 4, filled)),
            Mark::Square => area.draw(&Rectangle::new([(x - size, y - size), (x + size, y + size)], filled)),
            Mark::Cross => area.draw(&Cross::new((x, y), size, line)),
            Mark::Diamond => {
                let size = size * 5 / 4;
                let corners = vec![(x, y - size), (x + size, y), (x, y + size), (x - size, y)];
                area.draw(&Polygon::new(corners, filled))
            }
        }
        .map_err(wrong)
    }

    /// Draws a line through pixels.
    pub fn draw_line(&self, area: &Area<'_>, points: &[(i32, i32)], width: f64) -> Result<(), Failure> {
        if !self.dashed {
            return area.draw(&PathElement::new(points.to_vec(), self.stroke(width))).map_err(wrong);
        }
        let dashes = DashedPathElement::new(points.iter().copied(), px(6), px(4), self.stroke(width));
        area.draw(&dashes).map_err(wrong)
    }
}
